"""Ranking of moments of several windows: the first of all, then the second of all, each by falling match or score."""

from __future__ import annotations

import pytest
import torch

from pps_fast.ground.ranking import ranked, rows_of
from pps_fast.ground.scorers import Scored
from pps_fast.ground.segments import EncodedVideo


def _video(name: str, starts: list[float], length: float, duration_s: float | None = None) -> EncodedVideo:
    ends = tuple(start + length for start in starts)
    return EncodedVideo(name=name, duration_s=duration_s, start=tuple(starts), end=ends, frames=torch.zeros(1))


VIDEOS = [_video("a", [0.0, 0.5], 0.5, duration_s=10.0), _video("b", [0.0], 1.0)]
WINDOWS = [(VIDEOS[0], 0), (VIDEOS[0], 1), (VIDEOS[1], 0)]
SPANS = torch.tensor([[[0.0, 0.5], [0.5, 1.0]], [[0.2, 0.4], [0.0, 0.1]], [[0.1, 0.9], [0.3, 0.4]]])
SCORE = torch.tensor([[3.0, 1.0], [9.0, 2.0], [3.0, 2.5]])


def test_windows_of_the_videos_are_numbered_in_their_order() -> None:
    assert rows_of(VIDEOS) == [range(0, 2), range(2, 3)]


def test_without_a_match_scores_rank_and_equal_ones_keep_the_order() -> None:
    scored = Scored(spans=SPANS[:, None], score=SCORE[:, None])
    moments = list(ranked(scored, WINDOWS, 0, slice(0, 3)))
    assert [moment.score for moment in moments] == [9.0, 3.0, 3.0, 2.5, 2.0, 1.0]
    assert [moment.video for moment in moments] == ["a", "a", "b", "b", "a", "a"]
    # a window's fractions become the video's, and seconds where its length is known
    assert (moments[0].start, moments[0].end) == pytest.approx((0.6, 0.7))
    assert (moments[0].start_s, moments[0].end_s) == pytest.approx((6.0, 7.0))
    assert moments[2].start_s is None and moments[0].match is None


def test_a_match_ranks_whatever_the_scores_and_rows_may_begin_later() -> None:
    match = torch.tensor([[0.5], [0.1], [0.2], [0.9]])
    earlier = torch.zeros(1, 1, 2)
    scored = Scored(
        spans=torch.cat([earlier[..., None].expand(1, 1, 2, 2), SPANS[:, None]]),
        score=torch.cat([earlier, SCORE[:, None]]),
        match=match,
        clarity=match + 0.05,
    )
    moments = list(ranked(scored, WINDOWS, 0, slice(1, 4)))
    assert [moment.match for moment in moments] == pytest.approx([0.9, 0.2, 0.1] * 2)
    assert [moment.video for moment in moments[:3]] == ["b", "a", "a"]
    assert moments[0].clarity == pytest.approx(0.95)
