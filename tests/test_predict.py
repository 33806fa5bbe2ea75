"""Overlaps, voting rules, ranking and the answer, against the published code's float64 results and by property."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast.config import Selector
from pps_fast.config_tree import override
from pps_fast.predict import SELECTORS, evaluation_batch_size, pairwise_iou, predict, temporal_iou
from pps_fast.presets import PRESETS
from pps_fast.types import Components, ModelOutput, Proposals
from tests.support.compare import assert_agree

GOLDEN = Path(__file__).resolve().parent / "golden" / "kernels_f64.npz"
RULES = {
    "charades": "vote_loss_weighted",
    "activitynet": "vote",
    "cpl_charades": "vote_iou_weighted",
    "none": "lowest_loss",
}
# the golden file's names of the rules
RULES = {
    "charades": "vote_loss_weighted",
    "activitynet": "vote",
    "cpl_charades": "vote_iou_weighted",
    "none": "lowest_loss",
}


@pytest.mark.parametrize(
    ("preset", "changes", "on_cpu", "on_gpu"),
    [
        ("charades", {}, 32, 512),
        # its samples see each other, so that another batch is another answer
        ("charades_released", {}, 32, 32),
        ("charades_released", {"inference.batch_size": 7}, 7, 7),
        ("charades", {"inference.batch_size": 7}, 7, 7),
    ],
)
def test_a_gpu_is_asked_more_at_once_where_samples_do_not_mix(
    preset: str, changes: dict, on_cpu: int, on_gpu: int
) -> None:
    config = override(PRESETS[preset], changes)
    sizes = [evaluation_batch_size(config, torch.device(name)) for name in ("cpu", "cuda")]
    assert sizes == [on_cpu, on_gpu]


def _output(nll: Tensor, start: Tensor, end: Tensor, reward: Tensor | None = None) -> ModelOutput:
    """Returns a model's output with nothing but what inference reads: [B, K] each."""
    nothing = nll.new_zeros(len(nll), 0)
    components = Components(center=nothing, width=nothing, masks=nothing, log_masks=nothing)
    proposals = Proposals(
        components=components, importance=nothing, masks=nothing, log_masks=nothing, start=start, end=end
    )
    return ModelOutput(proposals=proposals, positive_nll=nll, reward=reward)


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


def test_the_selector_alignment_ranks_by_reward_alone() -> None:
    start = torch.arange(4.0).expand(2, 4) / 10
    nll = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).repeat(2, 1)
    reward = torch.tensor([[0.5, 2.0, -1.0, 0.7], [1.0, 3.0, 3.0, -0.2]])
    output = _output(nll, start, start + 0.05, reward)
    prediction = predict(output, "alignment")
    assert_agree("order", prediction.order, torch.tensor([[1, 3, 0, 2], [1, 2, 0, 3]]))
    assert_agree("top1", prediction.top1[:, 0], torch.tensor([0.1, 0.1]))
    assert_agree("nll", prediction.nll, torch.tensor([[-2.0, -0.7, -0.5, 1.0], [-3.0, -3.0, -1.0, 0.2]]))
    assert predict(output, "lowest_loss").order.tolist() == [[0, 1, 2, 3]] * 2


def test_the_selector_alignment_needs_a_model_with_one() -> None:
    output = _output(torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="this model has no alignment; train one with --losses.alignment 1"):
        predict(output, "alignment")


@pytest.mark.parametrize("selector", SELECTORS)
def test_samples_do_not_see_each_other(selector: str) -> None:
    nll = torch.rand(6, 7) + 1
    start, end = torch.rand(6, 7, 2).sort(dim=-1).values.unbind(-1)
    together = predict(_output(nll, start, end, nll.cos()), selector)
    for row in range(6):
        one = slice(row, row + 1)
        alone = predict(_output(nll[one], start[one], end[one], nll[one].cos()), selector)
        for name in ("spans", "nll", "order", "votes", "top1"):
            assert_agree(name, getattr(alone, name)[0], getattr(together, name)[row])


def test_unknown_selector_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"selector = 'best': expected one of vote, .*lowest_loss"):
        predict(_output(torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 2)), "best")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {name.removeprefix("rank/"): file[name] for name in file.files if name.startswith("rank/")}


def _ranked(golden: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    nll = torch.from_numpy(np.take_along_axis(golden["C"], golden["order"], axis=1))
    return torch.from_numpy(golden["selected"]), nll


def test_registry_has_exactly_the_configured_choices() -> None:
    assert set(SELECTORS) == set(get_args(Selector))


def test_overlap_matches_the_published_matrix(golden: dict[str, np.ndarray]) -> None:
    spans, _ = _ranked(golden)
    assert_agree("iou_matrix", pairwise_iou(spans), golden["iou_matrix"], atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_votes_and_choice_match_the_published_rule(golden: dict[str, np.ndarray], rule: str) -> None:
    votes = SELECTORS[RULES[rule]](*_ranked(golden))
    assert_agree("votes", votes, golden[f"{rule}/votes"], atol=1e-12)
    assert_agree("idx", votes.argmax(dim=1), golden[f"{rule}/idx"])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.0, 0.5), (0.25, 0.75), 1 / 3),
        ((0.0, 0.4), (0.0, 0.4), 1.0),
        ((0.0, 1.0), (0.25, 0.5), 0.25),
        ((0.0, 0.2), (0.5, 0.9), 0.0),
        # touching: only the smoothing is left
        ((0.0, 0.5), (0.5, 1.0), 1e-10),
        # a moment without length overlaps itself wholly
        ((0.3, 0.3), (0.3, 0.3), 1.0),
    ],
)
def test_overlap_of_two_moments(first: tuple, second: tuple, expected: float) -> None:
    pair = (torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64))
    assert_agree("iou", temporal_iou(*pair), torch.tensor(expected, dtype=torch.float64), atol=1e-9)
    assert_agree("symmetry", temporal_iou(*pair), temporal_iou(*pair[::-1]))


def test_overlap_broadcasts() -> None:
    spans = torch.rand(4, 3, 2, dtype=torch.float64).sort(dim=-1).values
    one = torch.tensor([0.2, 0.6], dtype=torch.float64)
    expected = torch.stack([torch.stack([temporal_iou(span, one) for span in row]) for row in spans])
    assert_agree("iou", temporal_iou(spans, one), expected)


def test_worst_proposal_has_no_vote_under_the_loss_weighted_rule() -> None:
    spans = torch.tensor([[[0.0, 0.3], [0.5, 0.8], [0.5, 0.8]]], dtype=torch.float64)
    # the two that agree are the two worst; without the last one's vote the best wins
    nll = torch.tensor([[1.0, 2.9, 3.0]], dtype=torch.float64)
    assert SELECTORS["vote"](spans, nll).argmax(dim=1).item() == 1
    assert SELECTORS["vote_loss_weighted"](spans, nll).argmax(dim=1).item() == 0


def test_losses_of_zero_do_not_divide_by_zero() -> None:
    spans = torch.rand(2, 3, 2).sort(dim=-1).values
    assert SELECTORS["vote_loss_weighted"](spans, torch.zeros(2, 3)).isfinite().all()


@pytest.mark.parametrize("selector", SELECTORS)
def test_single_proposal_is_chosen_by_every_rule(selector: str) -> None:
    votes = SELECTORS[selector](torch.tensor([[[0.1, 0.4]]]), torch.tensor([[2.0]]))
    assert votes.shape == (1, 1)
    assert votes.isfinite().all()
