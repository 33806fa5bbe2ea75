"""Ranking by C and the answer of each rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast.inference.predict import predict
from pps_fast.inference.selection import SELECTORS
from pps_fast.types import Components, ModelOutput, Proposals
from tests.compare import assert_agree

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "kernels_f64.npz"
RULES = {
    "charades": "vote_loss_weighted",
    "activitynet": "vote",
    "cpl_charades": "vote_iou_weighted",
    "none": "lowest_loss",
}


def _output(nll: Tensor, start: Tensor, end: Tensor) -> ModelOutput:
    """Returns a model's output with nothing but what inference reads: [B, K] each."""
    nothing = nll.new_zeros(len(nll), 0)
    components = Components(center=nothing, width=nothing, masks=nothing, log_masks=nothing)
    proposals = Proposals(
        components=components, importance=nothing, masks=nothing, log_masks=nothing, start=start, end=end
    )
    return ModelOutput(
        proposals=proposals, positive_nll=nll, negative_masks=None, negative_nll=None, whole_video_nll=None
    )


@pytest.mark.parametrize("rule", RULES)
def test_order_moments_votes_and_answer_match_the_published_code(rule: str) -> None:
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {name: file[f"rank/{name}"] for name in ("C", "left", "right", "order", "selected")}
        expected = {name: file[f"rank/{rule}/{name}"] for name in ("votes", "top1")}
    output = _output(*(torch.from_numpy(golden[name]) for name in ("C", "left", "right")))
    prediction = predict(output, RULES[rule])
    assert_agree("order", prediction.order, golden["order"])
    assert_agree("spans", prediction.spans, golden["selected"])
    assert_agree("nll", prediction.nll, np.sort(golden["C"], axis=1))
    assert_agree("votes", prediction.votes, expected["votes"], atol=1e-12)
    assert_agree("top1", prediction.top1, expected["top1"])


def test_ties_keep_the_order_of_the_proposals() -> None:
    nll = torch.tensor([[2.0, 1.0, 2.0, 1.0, 2.0]]).repeat(3, 1)
    start = torch.arange(5.0).expand(3, 5) / 10
    prediction = predict(_output(nll, start, start + 0.05), "lowest_loss")
    assert_agree("order", prediction.order, torch.tensor([[1, 3, 0, 2, 4]] * 3))
    assert_agree("top1", prediction.top1[:, 0], torch.tensor([0.1] * 3))


def test_equal_votes_go_to_the_lowest_loss() -> None:
    # four moments that do not meet: every plain vote is 1
    start = torch.tensor([[0.0, 0.25, 0.5, 0.75]])
    prediction = predict(_output(torch.tensor([[4.0, 3.0, 1.0, 2.0]]), start, start + 0.2), "vote")
    assert_agree("top1", prediction.top1, torch.tensor([[0.5, 0.7]]))


@pytest.mark.parametrize("selector", SELECTORS)
def test_samples_do_not_see_each_other(selector: str) -> None:
    nll = torch.rand(6, 7) + 1
    start, end = torch.rand(6, 7, 2).sort(dim=-1).values.unbind(-1)
    together = predict(_output(nll, start, end), selector)
    for row in range(6):
        alone = predict(_output(nll[row, None], start[row, None], end[row, None]), selector)
        for name in ("spans", "nll", "order", "votes", "top1"):
            assert_agree(name, getattr(alone, name)[0], getattr(together, name)[row])


def test_unknown_selector_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"selector = 'best': expected one of vote, .*lowest_loss"):
        predict(_output(torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 2)), "best")
