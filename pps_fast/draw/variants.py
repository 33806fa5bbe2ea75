"""Several models' answers to the same query, one under the other.

Paper: Fig. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pps_fast.draw.style import BLACK, GRAY, SERIES, TRUTH, bare, in_style, legend, new_figure, time_axis, title
from pps_fast.draw.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@in_style
def draw_variants(views: Mapping[str, View]) -> Figure:
    """Draws, for each label, the voted moment as a thick bar and under it the proposals it was voted from.

    Dots on a proposal are the centers of its components, with an area that goes with their importance.

    Raises:
        ValueError: for no views, or views of different queries.
    """
    queries = {(view.sample, view.sentence, view.duration_s, view.moment_s) for view in views.values()}
    if len(queries) != 1:
        raise ValueError(f"draw_variants: {len(queries)} different queries; expected views of one and the same query")
    first = next(iter(views.values()))
    steps = [2 + max(view.layout.num_proposals, 2) for view in views.values()]
    figure = new_figure(1.5 + 0.115 * sum(steps), first.sentence)
    rows = figure.subplots(1 + len(views), 1, sharex=True, gridspec_kw={"height_ratios": [2, *steps]})
    for axes in rows:
        bare(axes)
        axes.axvspan(*first.moment_s, color=TRUTH, linewidth=0, zorder=0)
        axes.tick_params(bottom=axes is rows[-1])
    rows[0].set_ylim(-1, 1)
    rows[0].plot(first.moment_s, [0, 0], color=GRAY, linewidth=9, solid_capstyle="butt")
    _name(rows[0], 0, "truth")
    for number, (label, view) in enumerate(views.items()):
        _draw_variant(rows[number + 1], label, view, SERIES[number % len(SERIES)])
    time_axis(rows[-1], first.duration_s)
    title(rows[0], f"“{first.sentence}”", f"video {first.video_id}, sample {first.sample} ({first.split})")
    legend(figure, rows[1:])
    return figure


def _draw_variant(axes: Axes, label: str, view: View, color: str) -> None:
    num_proposals = view.layout.num_proposals
    axes.set_ylim(-num_proposals - 0.7, 1.2)
    axes.plot(view.answer_s(), [0, 0], color=color, linewidth=9, solid_capstyle="butt", label="answer")
    _name(axes, 0, label)
    axes.text(1.02, 0, f"IoU {view.overlap():.2f}", transform=axes.get_yaxis_transform(), va="center", color=BLACK)
    proposals = view.output.proposals
    for proposal, span in enumerate(view.spans_s()):
        height = -1.2 - proposal
        axes.plot(span, [height, height], color=color, linewidth=1.6, alpha=0.8, label="proposal")
        components = view.components(proposal)
        axes.scatter(
            [proposals.components.center[0, component].item() * view.duration_s for component in components],
            [height] * len(components),
            s=[24 * proposals.importance[0, component].item() + 2 for component in components],
            color=color,
            zorder=3,
            linewidth=0,
            label="center of a component",
        )


def _name(axes: Axes, height: float, name: str) -> None:
    axes.text(-0.01, height, name, transform=axes.get_yaxis_transform(), ha="right", va="center")
