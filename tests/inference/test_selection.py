"""Overlap and the four voting rules, against the published code's float64 results and by property."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast.config import Selector
from pps_fast.inference.selection import SELECTORS, pairwise_iou, temporal_iou
from tests.compare import assert_agree

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "kernels_f64.npz"
# the golden file's names of the rules
RULES = {
    "charades": "vote_loss_weighted",
    "activitynet": "vote",
    "cpl_charades": "vote_iou_weighted",
    "none": "lowest_loss",
}


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
