"""K folds by video: no video is in two folds, and the folds have about as many samples each."""

from __future__ import annotations

import numpy as np


def assign_folds(sample_video: np.ndarray, num_videos: int, num_folds: int, seed: int) -> np.ndarray:
    """Distributes videos over folds: shuffled by the seed, then the largest first, each to the emptiest fold.

    Args:
        sample_video: [M] int64, the video of each sample.
        num_videos: N.
        num_folds: K, from 2 to N.
        seed: decides the folds together with the arguments above.

    Returns:
        [N] int64 fold of each video, 0 to K - 1; sample counts of two folds differ by at most those of one video.

    Raises:
        ValueError: for fewer than 2 folds or more folds than videos.
    """
    if not 2 <= num_folds <= num_videos:
        raise ValueError(f"folds = {num_folds}: expected 2 to {num_videos}, the number of videos")
    samples = np.bincount(sample_video, minlength=num_videos)
    shuffled = np.random.default_rng(seed).permutation(num_videos)
    largest_first = shuffled[np.argsort(-samples[shuffled], kind="stable")]
    fold_of_video = np.empty(num_videos, dtype=np.int64)
    # per fold: samples, then videos, so that folds of equal samples take turns
    load = [(0, 0, fold) for fold in range(num_folds)]
    for video in largest_first:
        num_samples, num_members, fold = min(load)
        fold_of_video[video] = fold
        load[fold] = (num_samples + int(samples[video]), num_members + 1, fold)
    return fold_of_video
