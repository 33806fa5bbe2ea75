"""A view reads ranks back into proposals, and fractions into seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pps_fast.proposals.layout import ramp, uniform
from tests.support.draw_views import view_of


def test_spans_votes_and_answer_are_those_of_the_proposals_in_their_own_order():
    view = view_of()
    assert view.prediction.order.tolist() == [[1, 0, 2]]
    assert view.spans_s() == [pytest.approx((40 * (k / 4 - 0.1), 40 * (k / 4 + 0.1))) for k in (1, 2, 3)]
    # the middle one meets nobody more than the others do: all have their own vote of 1
    assert view.votes() == pytest.approx([1.0, 1.0, 1.0])
    assert view.chosen() == 1 and view.answer_s() == pytest.approx((16.0, 24.0))
    votes = replace(view.prediction, votes=torch.tensor([[0.1, 0.2, 0.7]]))
    assert replace(view, prediction=votes).votes() == pytest.approx([0.2, 0.1, 0.7])
    assert replace(view, prediction=votes).chosen() == 2


@pytest.mark.parametrize(
    ("moment_s", "overlap"), [((16.0, 24.0), 1.0), ((16.0, 20.0), 0.5), ((8.0, 20.0), 0.25), ((30.0, 40.0), 0.0)]
)
def test_overlap_is_that_of_answer_and_truth(moment_s, overlap):
    assert view_of(moment_s=moment_s).overlap() == pytest.approx(overlap, abs=1e-6)


def test_components_come_from_left_to_right():
    assert [view_of(ramp(3)).components(k) for k in range(3)] == [[0], [2, 1], [5, 4, 3]]
    assert view_of(uniform(2, 1)).components(1) == [1]


def test_record_of_another_layout_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 1, 6\), the layout says \(1, 3, 1, 3\)"):
        replace(view_of(ramp(3)), layout=uniform(3, 1))
