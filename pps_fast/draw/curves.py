"""Learning curves of one or several runs, from their metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pps_fast.draw.style import GRAY, SERIES, in_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = Sequence[Mapping[str, Any]]
_NUM_COLUMNS = 3
# what the video tells a model -> panel
_GAINS = {"nats": "gain of the video, nats (dashed: margin)", "reward": "gain of the video, reward"}
_MARGINS = ("whole_video_margin", "negative_margin")
_LAST = ("gradient norm", "learning rate", *_GAINS.values(), "validation mIoU, %")


@in_style
def draw_curves(runs: Mapping[str, Lines]) -> Figure:
    """Draws the total loss, each term before its weight, gradient norm, learning rate, and what else there is.

    That is how much better a model does with a sentence's own video than with another, in nats and reward, the smaller
    margin of the contrastive loss beside it as a dashed line; and the mIoU of the validation split.

    Args:
        runs: label -> lines of a metrics.jsonl (see `runs.metrics_log`). Nothing is smoothed.

    Raises:
        ValueError: for runs without a line.
    """
    empty = [label for label, lines in runs.items() if not any("loss" in line for line in lines)]
    if empty or not runs:
        raise ValueError(
            f"draw_curves: no line of training in {', '.join(empty) or 'nothing'}; train a few steps first"
        )
    panels = _panels(runs)
    num_rows = -(-len(panels) // _NUM_COLUMNS)
    figure = new_figure(0.5 + 1.75 * num_rows)
    grid = figure.subplots(num_rows, _NUM_COLUMNS, squeeze=False).flatten()
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        _draw_panel(axes, name, curves, list(runs))
        if name in _GAINS.values():
            _draw_margins(axes, runs if name == _GAINS["nats"] else {})
    for axes in grid[len(panels) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return figure


def _panels(runs: Mapping[str, Lines]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Returns panel -> label -> points (update, value), in the order the panels are drawn in."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {"total loss, weighted": {}}
    for label, lines in runs.items():
        for line in lines:
            for name, value in _values(line).items():
                panels.setdefault(name, {}).setdefault(label, []).append((line["step"], value))
    # what a run does not have, such as a term of weight 0, must not move the others' panels
    last = [name for name in _LAST if name in panels]
    return {name: panels[name] for name in (*(name for name in panels if name not in last), *last)}


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns panel -> value of one line of a metrics.jsonl."""
    if "validation" in line:
        return {"validation mIoU, %": line["validation"]["mIoU"]}
    if "video_gain" in line:
        return {panel: line["video_gain"][name] for name, panel in _GAINS.items() if name in line["video_gain"]}
    terms = {f"{name.replace('_', ' ')} loss": value for name, value in line["terms"].items()}
    return {
        "total loss, weighted": line["loss"],
        **terms,
        "gradient norm": line["grad_norm"],
        "learning rate": line["lr"],
    }


def _draw_panel(axes: Axes, name: str, curves: dict[str, list[tuple[int, float]]], labels: list[str]) -> None:
    for label, points in curves.items():
        steps, values = zip(*points, strict=True)
        number = labels.index(label)
        # thinner above thicker, so that equal curves are seen to be equal
        look: dict[str, Any] = {"color": SERIES[number % len(SERIES)], "linewidth": max(1.2, 2.4 - 0.6 * number)}
        # a single point would be an invisible line
        axes.plot(steps, values, **look, label=label, marker="o" if len(steps) < 12 else None, ms=3)
    axes.set_title(name, loc="left")
    axes.set_xlabel("updates")
    axes.set_xlim(left=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-4, 5))


def _draw_margins(axes: Axes, runs: Mapping[str, Lines]) -> None:
    """Draws the smaller margin that the masks of a video are asked for, once where runs have the same, above zero."""
    gains = [line["video_gain"] for lines in runs.values() for line in lines if "video_gain" in line]
    for margin in sorted({min(values[name] for name in _MARGINS) for values in gains if _MARGINS[0] in values}):
        axes.axhline(margin, color=GRAY, linewidth=1, linestyle="--", label="margin")
    axes.set_ylim(bottom=min(axes.get_ylim()[0], 0.0))
