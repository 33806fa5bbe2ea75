"""Trajectories: the traced numbers of the right sample and proposal, in seconds."""

from __future__ import annotations

import pytest

from pps_fast.draw.trajectories import TracedQuery, TracedRun, draw_trajectories
from pps_fast.proposals.layout import ramp, uniform

pytest.importorskip("matplotlib", reason="needs the plot extra")

QUERIES = [
    TracedQuery(sample=sample, sentence=f"sentence {sample}", duration_s=20.0, moment_s=(5.0, 10.0))
    for sample in (12, 11)
]


def _run(layout=None) -> TracedRun:
    """Returns a trace whose numbers tell sample, component and step."""
    layout = layout or ramp(2)
    size, num_proposals = layout.num_components, layout.num_proposals
    lines = []
    for step in (0, 5, 7):
        where = {
            "center": [
                [0.1 * sample + 0.01 * component + 0.05 * step for component in range(size)] for sample in (0, 1)
            ],
            "importance": [[0.25 * component for component in range(size)] for _ in (0, 1)],
            "start": [[0.02 * (k + 1) for k in range(num_proposals)]] * 2,
            "end": [[0.5 + 0.02 * (k + 1) for k in range(num_proposals)]] * 2,
        }
        lines.append({"step": step, "samples": [11, 12], **where})
    return TracedRun(lines=lines, layout=layout)


def _centers(axes) -> list:
    return [item for item in axes.collections if item.get_label().startswith("center")]


def test_lines_are_the_centers_of_the_last_proposal_in_seconds():
    figure = draw_trajectories({"full": _run(), "without pull": _run(uniform(2, 1))}, QUERIES)
    first, single, below, _ = figure.axes
    # components 1 and 2 of sample 12, which was traced second
    for component, drawn in zip((1, 2), _centers(first), strict=True):
        points = [20.0 * (0.1 + 0.01 * component + 0.05 * step) for step in (0, 5, 7)]
        pieces = drawn.get_segments()
        assert [piece[:, 0].tolist() for piece in pieces] == [[0, 5], [5, 7]]
        heights = [pieces[0][0, 1], *[piece[1, 1] for piece in pieces]]
        assert heights == pytest.approx(points)
        assert list(drawn.get_linewidths()) == [0.5 + 4 * 0.25 * component] * 2
    assert [len(_centers(axes)) for axes in (first, single)] == [2, 1]
    assert _centers(below)[0].get_segments()[0][0, 1] == pytest.approx(0.2)
    borders = [line.get_ydata()[0] for line in first.get_lines()]
    assert borders == pytest.approx([0.04 * 20, 0.54 * 20])
    assert first.get_xlim() == (0.0, 7.0) and first.get_ylim() == (0.0, 20.0)


def test_labels_say_run_proposal_axes_and_sentence():
    figure = draw_trajectories({"full": _run(), "other": _run()}, QUERIES, proposal=0)
    first, second, *_ = figure.axes
    assert [text.get_text() for axes in (first, second) for text in axes.texts] == [
        "full, proposal 1", "other, proposal 1",
    ]  # fmt: skip
    assert {axes.get_xlabel() for axes in figure.axes} == {"updates"}
    assert figure.axes[0].get_ylabel() == "time in the video, s"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["“sentence 12”", "", "“sentence 11”", ""]
    assert [len(_centers(axes)) for axes in figure.axes] == [1] * 4


def test_what_was_not_traced_is_refused():
    stranger = TracedQuery(sample=3, sentence="", duration_s=1.0, moment_s=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"full: sample 3 was not traced; choose among \[11, 12\]"):
        draw_trajectories({"full": _run()}, [stranger])
    with pytest.raises(ValueError, match="full: proposal 2: expected 0 to 1"):
        draw_trajectories({"full": _run()}, QUERIES, proposal=2)
    with pytest.raises(ValueError, match="1 runs, 0 queries"):
        draw_trajectories({"full": _run()}, [])
