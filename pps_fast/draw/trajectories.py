"""How the components of one proposal move while a model learns: what pull and push do.

Paper: Section 3, "Pulling" and "Pushing" losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pps_fast.draw.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    TRUTH,
    VERMILLION,
    in_style,
    legend,
    new_figure,
    title,
)
from pps_fast.proposals.layout import MixtureLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK)


@dataclass(frozen=True, kw_only=True)
class TracedRun:
    """A run's trace.jsonl and what it takes to read it.

    Attributes:
        lines: of the trace (see `runs.trace`), by increasing step, all of the same samples.
        layout: how many components each proposal has.
    """

    lines: Sequence[Mapping[str, Any]]
    layout: MixtureLayout


@dataclass(frozen=True, kw_only=True)
class TracedQuery:
    """A traced sample.

    Attributes:
        sample: position in the data set.
        sentence: as annotated.
        duration_s: length of the video.
        moment_s: true start and end, in seconds.
    """

    sample: int
    sentence: str
    duration_s: float
    moment_s: tuple[float, float]


@in_style
def draw_trajectories(runs: Mapping[str, TracedRun], queries: Sequence[TracedQuery], proposal: int = -1) -> Figure:
    """Draws a column for each run and a row for each query.

    Lines are the centers of the components, as thick as their importance; the outlined area is the moment the proposal
    stands for; the band is the truth, which training never sees.

    Args:
        runs: label -> trace.
        proposal: 0 to K - 1; -1 is the last, which has the most components in the paper's layout.

    Raises:
        ValueError: for no run or query, a sample that was not traced, or a proposal that a run does not have.
    """
    _check(runs, queries, proposal)
    figure = new_figure(0.7 + 2.3 * len(queries))
    grid = figure.subplots(len(queries), len(runs), squeeze=False, sharey="row")
    for query, row in zip(queries, grid, strict=True):
        row[0].set_ylabel("time in the video, s")
        for column, (axes, (label, run)) in enumerate(zip(row, runs.items(), strict=True)):
            number = proposal % run.layout.num_proposals
            title(axes, "" if column else f"“{query.sentence}”", f"{label}, proposal {number + 1}")
            axes.set_xlabel("updates")
            _draw_panel(axes, run, query, number)
    legend(figure, grid[0])
    return figure


def _check(runs: Mapping[str, TracedRun], queries: Sequence[TracedQuery], proposal: int) -> None:
    if not runs or not queries:
        raise ValueError(f"draw_trajectories: {len(runs)} runs, {len(queries)} queries; expected at least one of each")
    for label, run in runs.items():
        traced = run.lines[0]["samples"] if run.lines else []
        missing = [query.sample for query in queries if query.sample not in traced]
        if missing:
            raise ValueError(f"{label}: sample {missing[0]} was not traced; choose among {traced}")
        if not -1 <= proposal < run.layout.num_proposals:
            raise ValueError(f"{label}: proposal {proposal}: expected 0 to {run.layout.num_proposals - 1}")


def _draw_panel(axes: Axes, run: TracedRun, query: TracedQuery, proposal: int) -> None:
    from matplotlib.collections import LineCollection

    position = run.lines[0]["samples"].index(query.sample)
    steps = [line["step"] for line in run.lines]
    start, end = (
        [line[name][position][proposal] * query.duration_s for line in run.lines] for name in ("start", "end")
    )
    axes.axhspan(*query.moment_s, color=TRUTH, linewidth=0, zorder=0, label="truth, never trained on")
    axes.fill_between(steps, start, end, color=SKY, alpha=0.2, linewidth=0, label="moment of the proposal")
    for border in (start, end):
        axes.plot(steps, border, color=GRAY, linewidth=0.8, linestyle="--")
    first, last = run.layout.offsets[proposal : proposal + 2]
    for number, component in enumerate(range(first, last)):
        center = [line["center"][position][component] * query.duration_s for line in run.lines]
        weight = [line["importance"][position][component] for line in run.lines]
        points = list(zip(steps, center, strict=True))
        pieces = [list(pair) for pair in zip(points, points[1:], strict=False)]
        widths = [0.5 + 4 * value for value in weight[1:]]
        color = _COLORS[number % len(_COLORS)]
        lines = LineCollection(pieces, linewidths=widths, colors=color, capstyle="round", zorder=3)
        lines.set_label("center of a component, thick where important")
        axes.add_collection(lines)
    axes.set_xlim(0, max(steps[-1], 1))
    axes.set_ylim(0, query.duration_s)
