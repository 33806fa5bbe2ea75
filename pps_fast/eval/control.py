"""The shuffled-query control: the model's answers when it is asked about another video."""

from __future__ import annotations

import numpy as np


def shuffle_queries(video: np.ndarray, seed: int) -> np.ndarray:
    """Assigns to each sample the query of another one, always of a different video.

    Every query is assigned once, so that only the match of query and video is destroyed; where one video has more
    than half of the samples that is impossible, and the queries of the other videos are assigned in turn.

    Args:
        video: [B] integers, the video of each sample.
        seed: of the order in which videos are paired; the result depends on nothing else.

    Returns:
        [B] int64 positions: sample b is asked the query of sample result[b]; video[result[b]] != video[b].

    Raises:
        ValueError: if there are not two videos.
    """
    num_samples = len(video)
    _, group, sizes = np.unique(video, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError(f"shuffle_queries: samples of {len(sizes)} video(s); a control needs queries of two videos")
    shuffled_rank = np.random.default_rng(seed).permutation(len(sizes))
    order = np.argsort(shuffled_rank[group], kind="stable")  # samples, video by video
    position = np.empty(num_samples, dtype=np.int64)
    position[order] = np.arange(num_samples)
    largest = int(sizes.max())
    if 2 * largest <= num_samples:
        # a shift by the longest run of one video leaves every run and, round the end, does not come back to it
        return order[(position + largest) % num_samples]
    size = sizes[group]
    first = np.full(len(sizes), num_samples, dtype=np.int64)
    np.minimum.at(first, group, position)
    turn = (position - first[group]) % (num_samples - size)
    return order[(first[group] + size + turn) % num_samples]
