"""Shuffled queries: always another video's, every query once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pps_fast.eval.control import shuffle_queries


@settings(max_examples=200, deadline=None)
@given(video=st.lists(st.integers(0, 6), min_size=2, max_size=40), seed=st.integers(0, 3))
def test_every_query_comes_from_another_video(video: list[int], seed: int) -> None:
    assume(len(set(video)) > 1)
    videos = np.array(video)
    asked = shuffle_queries(videos, seed)
    assert (videos[asked] != videos).all()
    if 2 * np.bincount(videos).max() <= len(videos):
        assert sorted(asked.tolist()) == list(range(len(videos)))


def test_one_seed_gives_one_pairing() -> None:
    video = np.repeat(np.arange(30), 3)
    assert (shuffle_queries(video, 0) == shuffle_queries(video, 0)).all()
    assert (shuffle_queries(video, 0) != shuffle_queries(video, 1)).any()


def test_neighbors_in_the_file_are_not_paired_systematically() -> None:
    video = np.arange(200)
    distance = np.abs(video[shuffle_queries(video, 0)] - video)
    assert np.median(distance) > 20


def test_majority_video_is_asked_the_queries_of_all_others() -> None:
    video = np.array([5] * 10 + [1, 2, 3])
    asked = shuffle_queries(video, 0)
    assert set(asked[:10].tolist()) == {10, 11, 12}
    assert (video[asked[10:]] != video[10:]).all()


@pytest.mark.parametrize("video", [[3], [4, 4, 4]])
def test_single_video_has_no_control(video: list[int]) -> None:
    with pytest.raises(ValueError, match="queries of two videos"):
        shuffle_queries(np.array(video), 0)
