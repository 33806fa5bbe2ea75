"""Intervals by video."""

from __future__ import annotations

import math

import pytest
import torch

from pps_fast import machine
from pps_fast.eval.bootstrap import VideoBootstrap

SEEDED = {"num_resamples": 400, "seed": 0}


def _values(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_value_is_the_mean_and_lies_in_the_interval() -> None:
    values = _values(60)
    estimate = VideoBootstrap(torch.arange(60) // 4, **SEEDED).estimate(values)
    assert estimate.value == values.mean().item()
    assert estimate.low < estimate.value < estimate.high


def test_same_seed_same_interval_other_seed_another() -> None:
    video, values = torch.arange(60) // 4, _values(60)
    first, again, other = (VideoBootstrap(video, num_resamples=400, seed=seed).estimate(values) for seed in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_width_is_that_of_the_central_limit_theorem() -> None:
    values = _values(2000)
    estimate = VideoBootstrap(torch.arange(2000), num_resamples=2000, seed=0).estimate(values)
    expected = 2 * 1.96 * values.std().item() / math.sqrt(2000)
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.1)


def test_repeating_the_samples_of_a_video_does_not_narrow_the_interval() -> None:
    values = _values(40)
    once = VideoBootstrap(torch.arange(40), **SEEDED).estimate(values)
    video = torch.arange(40).repeat_interleave(25)
    often = VideoBootstrap(video, **SEEDED).estimate(values.repeat_interleave(25))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_resampled_mean_is_over_samples_and_not_over_videos() -> None:
    # a video of 3 samples and one of 1: the only possible means are 0, 3/4 and 1
    estimate = VideoBootstrap(torch.tensor([7, 7, 7, 2]), **SEEDED).estimate(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert (estimate.value, estimate.low, estimate.high) == (0.75, 0.0, 1.0)
    assert VideoBootstrap(torch.tensor([7, 7, 7, 2]), **SEEDED).num_videos == 2


def test_paired_difference_is_narrower_than_its_parts() -> None:
    bootstrap = VideoBootstrap(torch.arange(200), **SEEDED)
    base = _values(200)
    better = base + 0.05 + 0.01 * _values(200, seed=1)
    difference = bootstrap.estimate(better - base)
    assert 0.05 < difference.low < difference.high < 0.06
    assert bootstrap.estimate(base).high - bootstrap.estimate(base).low > 0.05


def test_all_equal_values_have_no_width() -> None:
    estimate = VideoBootstrap(torch.arange(9) // 2, **SEEDED).estimate(torch.full((9,), 3.0))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((3.0, 3.0, 3.0))


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples to resample"):
        VideoBootstrap(torch.zeros(0, dtype=torch.int64), **SEEDED)


def test_other_number_of_values_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values of shape \[3\] for 4 samples"):
        VideoBootstrap(torch.arange(4), **SEEDED).estimate(torch.zeros(3))


def test_more_resamples_than_the_memory_has_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 20)
    VideoBootstrap(torch.arange(40), num_resamples=1000, seed=0)
    with pytest.raises(ValueError, match=r"^a bootstrap of 1,100 resamples needs .*; lower inference\.num_bootstrap$"):
        VideoBootstrap(torch.arange(40), num_resamples=1100, seed=0)
