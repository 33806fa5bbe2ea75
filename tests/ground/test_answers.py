"""Ranked moments: which are further answers, and what an answer shows."""

from __future__ import annotations

from pps_fast.ground.answers import Answer, Moment, best_moments


def _moment(start: float, end: float, video: str | None = None, match: float | None = 0.5) -> Moment:
    return Moment(video=video, start=start, end=end, start_s=None, end_s=None, score=1.0, match=match, clarity=None)


def test_a_moment_that_overlaps_a_better_one_of_its_video_by_more_than_half_is_left_out() -> None:
    first, near, half, apart = _moment(0.0, 0.4), _moment(0.0, 0.3), _moment(0.2, 0.4), _moment(0.5, 0.6)
    assert best_moments([first, near, half, apart], 5) == (first, half, apart)
    assert best_moments([first, near, half, apart], 2) == (first, half)
    elsewhere = _moment(0.0, 0.4, "other")
    assert best_moments([first, elsewhere], 5) == (first, elsewhere)
    point = _moment(0.7, 0.7)
    assert best_moments([point, point], 5) == (point,)


def test_an_answer_is_a_sequence_with_the_confidence_of_its_first_moment() -> None:
    answer = Answer(sentence="x", moments=(_moment(0, 1, match=0.8), _moment(0, 0.2, match=0.1)), unknown_words=("y",))
    assert len(answer) == 2 and list(answer) == list(answer.moments) and answer[0] is answer.moments[0]
    assert answer.match == 0.8 and answer.clarity is None
    plain = answer.to_dict()
    assert plain["moments"][1]["match"] == 0.1 and plain["match"] == 0.8 and plain["unknown_words"] == ("y",)
