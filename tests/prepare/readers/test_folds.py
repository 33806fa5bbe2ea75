"""Folds by video."""

from __future__ import annotations

import numpy as np
import pytest

from pps_fast.prepare.readers.folds import assign_folds


def sample_videos(num_videos: int, seed: int) -> np.ndarray:
    counts = np.random.default_rng(seed).integers(1, 13, num_videos)
    return np.repeat(np.arange(num_videos), counts)


@pytest.mark.parametrize(("num_videos", "num_folds"), [(2, 2), (7, 3), (100, 5), (101, 10)])
def test_every_video_has_one_fold_and_folds_are_balanced_by_samples(num_videos, num_folds):
    videos = sample_videos(num_videos, seed=1)
    folds = assign_folds(videos, num_videos, num_folds, seed=0)
    assert folds.shape == (num_videos,) and folds.dtype == np.int64
    assert set(folds.tolist()) == set(range(num_folds))
    loads = np.bincount(folds[videos], minlength=num_folds)
    assert loads.max() - loads.min() <= np.bincount(videos).max()


def test_many_small_videos_balance_to_one_sample():
    videos = sample_videos(1000, seed=2)
    loads = np.bincount(assign_folds(videos, 1000, 5, seed=3)[videos])
    assert loads.max() - loads.min() <= 1


def test_equal_seeds_give_equal_folds_and_other_seeds_others():
    videos = sample_videos(50, seed=1)
    first, again, other = (assign_folds(videos, 50, 5, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("num_folds", [-1, 0, 1, 4])
def test_impossible_numbers_of_folds_are_refused(num_folds):
    with pytest.raises(ValueError, match=f"folds = {num_folds}: expected 2 to 3"):
        assign_folds(np.array([0, 1, 2]), 3, num_folds, seed=0)
