"""Moments from curves: against exhaustive loops, ranked and distinct, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pps_fast.alignment.equations import max_sum_window
from pps_fast.alignment.windows import READERS, duration_bonus, filter_moments, window_moments
from pps_fast.predict import temporal_iou
from tests.support import alignment_oracle as oracle
from tests.support.compare import assert_agree

CURVES = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 21))).double()


@pytest.mark.parametrize(
    ("kind", "power", "extent"), [("linear", 0.25, math.sqrt(2)), ("standardized", 0.5, math.sqrt(3))]
)
def test_the_filter_finds_what_trying_all_gaussians_finds(kind: str, power: float, extent: float) -> None:
    moments = filter_moments(CURVES, 1, kind)
    for row, curve in enumerate(CURVES.numpy()):
        expected = torch.tensor([oracle.filtered_moment(curve, power=power, extent=extent)], dtype=torch.float64)
        got = torch.stack([moments.start[row], moments.end[row]], dim=1)
        assert_agree(f"moment {row}", got, expected, atol=1e-9)


def test_the_window_is_that_of_trying_all() -> None:
    moments = window_moments(CURVES, 1, "linear")
    for row, curve in enumerate(CURVES.numpy()):
        start, end = oracle.best_window(curve)
        assert (moments.start[row, 0] * 21, moments.end[row, 0] * 21) == pytest.approx((start, end))


@pytest.mark.parametrize(
    ("curve", "window"),
    [
        ([1.0, -3, 1], (0, 1)),
        ([-2, -1, -3], (1, 2)),
        ([0, 0, 0], (0, 1)),
        ([1, 1, -2, 2], (0, 2)),
        ([-1, 2, -1], (1, 2)),
    ],
)
def test_of_equal_windows_the_one_that_ends_and_then_starts_first(curve: list[float], window: tuple[int, int]) -> None:
    start, end = max_sum_window(torch.tensor([curve]))
    assert (start.item(), end.item()) == window


def test_further_moments_have_smaller_rewards_and_overlap_little() -> None:
    moments = filter_moments(CURVES, 5, "linear")
    spans = torch.stack([moments.start, moments.end], dim=2)
    overlap = temporal_iou(spans[:, :, None], spans[:, None])
    assert (moments.reward.diff(dim=1) <= 0).all()
    first, second = torch.triu_indices(5, 5, 1)
    assert (overlap[:, first, second] <= 0.5 + 1e-9).all()


def test_further_windows_lie_outside_those_before() -> None:
    moments = window_moments(CURVES, 3, "linear")
    assert (moments.masks.sum(dim=1) <= 1).all()
    assert (moments.reward[:, 0] >= moments.reward[:, 1]).all()


@pytest.mark.parametrize("reading", READERS)
@pytest.mark.parametrize("num_frames", [1, 2, 21])
def test_a_constant_curve_and_a_single_frame_answer_the_whole_video_with_reward_0(
    reading: str, num_frames: int
) -> None:
    moments = READERS[reading](torch.full((2, num_frames), 0.3), 3, "linear", None)
    assert (moments.start[:, 0] == 0).all() and (moments.end[:, 0] == 1).all() and (moments.reward == 0).all()


@pytest.mark.parametrize("reading", READERS)
def test_moments_lie_inside_the_video_and_have_masks(reading: str) -> None:
    moments = READERS[reading](CURVES.float(), 4, "standardized", None)
    assert (moments.start >= 0).all() and (moments.end <= 1).all() and (moments.start < moments.end).all()
    assert moments.masks.shape == (6, 4, 21) and (moments.masks.amax(dim=2) > 0.5).all()


def test_a_duration_bonus_draws_the_answer_to_its_length() -> None:
    plain = filter_moments(CURVES, 1, "linear")
    for radius in (0.05, 0.4):
        bonus = duration_bonus(torch.tensor(math.log(radius)), 1e4)
        drawn = filter_moments(CURVES, 1, "linear", bonus)
        inner = (drawn.start > 0) & (drawn.end < 1)
        length = (drawn.end - drawn.start)[inner]
        # the nearest radius of the bank
        assert ((length / (2 * math.sqrt(2)) / radius).log().abs() < 0.06).all()
    assert torch.equal(filter_moments(CURVES, 1, "linear", duration_bonus(torch.tensor(0.0), 0.0)).start, plain.start)
