"""The timeline shows what the records say, at the right seconds, for any number of proposals and components."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pps_fast.draw.style import ANSWER, PROPOSAL, render
from pps_fast.draw.timeline import draw_timeline
from pps_fast.proposals.layout import ramp, uniform
from tests.support.draw_views import DURATION_S, NUM_POSITIONS, lines, texts, view_of

pytest.importorskip("matplotlib", reason="needs the plot extra")


def test_every_part_is_drawn_where_it_belongs():
    view = view_of()
    figure = draw_timeline(view)
    top, *rows = figure.axes
    truth, answer = top.get_lines()
    assert list(truth.get_xdata()) == [8.0, 20.0] and list(answer.get_xdata()) == pytest.approx([16.0, 24.0])
    proposals = view.output.proposals
    for proposal, axes in enumerate(rows):
        (moment,), (mixture,) = lines(axes, "moment"), lines(axes, "mixture")
        assert list(moment.get_xdata()) == pytest.approx(view.spans_s()[proposal])
        assert list(mixture.get_ydata()) == proposals.masks[0, proposal].tolist()
        assert list(mixture.get_xdata())[:: NUM_POSITIONS - 1] == [0.0, DURATION_S]
        assert len(lines(axes, "easy negative")) == 1
        weighted = lines(axes, "component × importance")
        assert len(weighted) == proposal + 1
        # the mixture is the sum of what is drawn under it
        total = sum(torch.tensor(line.get_ydata()) for line in weighted)
        torch.testing.assert_close(total.float(), proposals.masks[0, proposal])
        (centers,) = [item for item in axes.collections if item.get_label().startswith("center")]
        order = view.components(proposal)
        expected = [proposals.components.center[0, e].item() * DURATION_S for e in order]
        assert centers.get_offsets()[:, 0].tolist() == pytest.approx(expected)
        assert (centers.get_sizes() - 3).tolist() == pytest.approx(
            [60 * proposals.importance[0, e].item() for e in order]
        )
    assert figure.axes[-1].get_xlim() == (0.0, DURATION_S)
    assert figure.axes[-1].get_xlabel() == "time in the video, s"


def test_numbers_and_the_sentence_are_written():
    view = view_of()
    shown = texts(draw_timeline(view))
    assert f"“{view.sentence}”" in shown and "video AB12, sample 7 (test)" in shown
    assert shown.count("proposal 2") == 1 and "IoU 0.25" in shown
    assert {"2.000", "1.000"} <= set(shown)
    # of the components from left to right: softmax of 2, 1, 0
    assert ".67 .24 .09" in shown and "1" in shown


def test_only_the_row_that_was_voted_for_has_the_color_of_the_answer():
    rows = draw_timeline(view_of()).axes[1:]
    assert [lines(axes, "mixture")[0].get_color() for axes in rows] == [PROPOSAL, ANSWER, PROPOSAL]


@pytest.mark.parametrize("layout", [ramp(7), uniform(1, 1), uniform(8, 1), uniform(3, 5)])
def test_any_layout_is_drawn_with_and_without_negatives(layout):
    for with_negatives in (True, False):
        figure = draw_timeline(view_of(layout, with_negatives=with_negatives))
        drawn = [len(lines(axes, "component × importance")) for axes in figure.axes[1:]]
        assert drawn == list(layout.components_per_proposal)
        assert all(len(lines(axes, "easy negative")) == with_negatives for axes in figure.axes[1:])


def test_several_negatives_of_a_proposal_and_masks_above_one_fit_in():
    view = view_of()
    output = replace(view.output, negative_masks=torch.full((1, 3, 2, NUM_POSITIONS), 2.0))
    for axes in draw_timeline(replace(view, output=output)).axes[1:]:
        assert len(lines(axes, "easy negative")) == 2
        assert axes.get_ylim()[1] > 2


def test_file_is_the_same_every_time():
    assert render(draw_timeline(view_of()), "svg") == render(draw_timeline(view_of()), "svg")
