"""One query over the time of its video: true moment, proposals with their components, and votes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pps_fast.draw.style import (
    ANSWER,
    BLACK,
    GRAY,
    PROPOSAL,
    TRUTH,
    bare,
    in_style,
    legend,
    new_figure,
    time_axis,
    title,
)
from pps_fast.draw.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# how many points right of the axes
_COLUMNS = {"C, nats": 8, "vote": 50, "importance": 92}


@in_style
def draw_timeline(view: View) -> Figure:
    """Draws one row for truth and answer, and one for each of the K proposals.

    In the row of a proposal, thin lines are its component masks times their importance, the thick one is their mixture,
    the dots on the ground are the components' centers with an area that goes with their importance, and the bar
    under them is the moment the proposal stands for. The row of the chosen proposal has the color of the answer.
    """
    num_proposals = view.layout.num_proposals
    row_height = 0.85 if num_proposals <= 4 else 0.6
    figure = new_figure(1.75 + row_height * num_proposals, view.sentence)
    heights = [0.6 / row_height, *[1.0] * num_proposals]
    rows = figure.subplots(1 + num_proposals, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    for axes in rows:
        axes.axvspan(*view.moment_s, color=TRUTH, linewidth=0, zorder=0)
        bare(axes)
    _draw_answer(rows[0], view)
    for proposal, axes in enumerate(rows[1:]):
        _draw_proposal(axes, view, proposal)
    for axes in rows[:-1]:
        axes.tick_params(bottom=False)
        axes.spines["bottom"].set_visible(False)
    time_axis(rows[-1], view.duration_s)
    title(rows[0], f"“{view.sentence}”", f"video {view.video_id}, sample {view.sample} ({view.split})")
    legend(figure, rows[1:])
    return figure


def _draw_answer(axes: Axes, view: View) -> None:
    axes.set_ylim(0, 2)
    for height, name, (start, end), color in (
        (1.5, "truth", view.moment_s, GRAY),
        (0.5, "answer", view.answer_s(), ANSWER),
    ):
        axes.plot([start, end], [height, height], color=color, linewidth=7, solid_capstyle="butt")
        _write(axes, height / 2, -8, name, ha="right")
    _write(axes, 0.25, _COLUMNS["C, nats"], f"IoU {view.overlap():.2f}", color=ANSWER)


def _draw_proposal(axes: Axes, view: View, proposal: int) -> None:
    output, is_chosen = view.output, proposal == view.chosen()
    color = ANSWER if is_chosen else PROPOSAL
    proposals = output.proposals
    seconds = torch.linspace(0, view.duration_s, proposals.masks.shape[-1]).tolist()
    axes.axhline(0, color=GRAY, linewidth=0.5)
    top = 1.0
    if output.negative_masks is not None:
        # some kinds of negatives exceed 1, or are several for a proposal
        negatives = output.negative_masks[0, proposal].reshape(-1, len(seconds))
        top = max(top, negatives.max().item())
        for negative in negatives:
            axes.plot(seconds, negative.tolist(), color=GRAY, linewidth=0.9, linestyle=":", label="easy negative")
    axes.set_ylim(-0.3 * top, 1.08 * top)
    components, weights = view.components(proposal), proposals.importance[0].tolist()
    for component in components:
        mask = proposals.components.masks[0, component] * proposals.importance[0, component]
        axes.fill_between(seconds, mask.tolist(), color=color, alpha=0.18, linewidth=0)
        axes.plot(seconds, mask.tolist(), color=color, linewidth=0.8, label="component × importance")
    axes.plot(seconds, proposals.masks[0, proposal].tolist(), color=color, linewidth=2, label="mixture")
    axes.scatter(
        [proposals.components.center[0, component].item() * view.duration_s for component in components],
        [0.0] * len(components),
        s=[60 * weights[component] + 3 for component in components],
        color="white",
        edgecolor=color,
        zorder=3,
        clip_on=False,
        label="center, area: importance",
    )
    axes.plot(
        view.spans_s()[proposal], [-0.2 * top] * 2, color=color, linewidth=4, solid_capstyle="butt", label="moment"
    )
    _write_row(axes, view, proposal)


def _write_row(axes: Axes, view: View, proposal: int) -> None:
    """Writes name, C, vote and importance beside a proposal's row."""
    is_chosen = proposal == view.chosen()
    look = {"color": ANSWER if is_chosen else BLACK, "weight": "bold" if is_chosen else "normal"}
    _write(axes, 0.5, -8, f"proposal {proposal + 1}", ha="right", **look)
    weights = view.output.proposals.importance[0].tolist()
    texts = (
        f"{view.output.positive_nll[0, proposal].item():.3f}",
        f"{view.votes()[proposal]:.3f}",
        " ".join(f".{round(100 * weights[c]):02d}" if weights[c] < 0.995 else "1" for c in view.components(proposal)),
    )
    for (name, offset), text in zip(_COLUMNS.items(), texts, strict=True):
        _write(axes, 0.5, offset, text, **look)
        if proposal == 0:
            _write(axes, 1.1, offset, name, fontsize=8, color=GRAY)


def _write(axes: Axes, height: float, offset: float, text: str, **look: Any) -> None:
    """Writes text at a height of the axes, shifted by some points beyond their right or left edge."""
    end = 1.0 if offset > 0 else 0.0
    axes.annotate(
        text, (end, height), (offset, 0), xycoords="axes fraction", textcoords="offset points", va="center", **look
    )
