"""Which answer belongs to which query, and the forms in which answers are written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pps_fast.eval.answers import Answer, Query, in_form, match_answers

LINE = {
    "qid": 7,
    "query": "a dog runs",
    "vid": "a",
    "pred_relevant_windows": [[1.0, 2.0, -3.0], [4.0, 6.0, -1.0]],
    "duration_s": 9.0,
    "moment_s": [1.0, 3.0],
    "windows_s": [[1.0, 3.0]],
    "iou": 0.5,
}


def _query(query_id: object, video: str = "a", sentence: str = "a dog runs", **changes: object) -> Query:
    query = Query(query_id=query_id, video_id=video, sentence=sentence, duration_s=9.0, windows=((1.0, 3.0),))
    return replace(query, **changes)


def _answer(query_id: object, video: str | None = "a", sentence: str | None = "a dog runs", line: int = 1) -> Answer:
    window = (float(line), float(line) + 1)
    where = f"x, line {line}"
    return Answer(query_id=query_id, video_id=video, sentence=sentence, chosen=window, windows=(window,), where=where)


def _lines(queries: list[Query], answers: list[Answer]) -> list[str | None]:
    matched = match_answers("x", queries, answers).answers
    return [None if answer is None else answer.where for answer in matched]


def test_ids_decide_where_they_agree_in_video_and_sentence() -> None:
    queries = [_query(1), _query(2, "b"), _query(3, "c")]
    # a number may be written as a text, and a sentence with other capitals
    answers = [_answer("2", "b", "A  dog runs", line=1), _answer(1, None, None, line=2), _answer(9, "d", line=3)]
    matched = match_answers("x", queries, answers)
    assert [answer and answer.where for answer in matched.answers] == ["x, line 2", "x, line 1", None]
    assert matched.num_unused == 1


def test_ids_that_mean_other_videos_are_not_believed() -> None:
    queries = [_query(0, "a"), _query(1, "b")]
    assert _lines(queries, [_answer(0, "b", line=1), _answer(1, "a", line=2)]) == ["x, line 2", "x, line 1"]


def test_without_ids_video_and_sentence_decide_and_repeated_ones_go_by_order() -> None:
    queries = [_query(None), _query(None, "b"), _query(None)]
    answers = [_answer("p", line=1), _answer("q", line=2), _answer("r", "b", line=3)]
    assert _lines(queries, answers) == ["x, line 1", "x, line 3", "x, line 2"]
    # a single answer serves all
    assert _lines(queries, answers[:1]) == ["x, line 1", None, "x, line 1"]
    with pytest.raises(ValueError, match=r"x, line 2: 2 answers to a sentence that the annotations have 1 times"):
        match_answers("x", queries[1:], answers[:2])


def test_queries_that_do_not_count_keep_the_order_and_are_left_out() -> None:
    queries = [_query(None, is_counted=False), _query(None), _query(None, "b", windows=())]
    answers = [_answer(None, line=1), _answer(None, line=2), _answer(None, "b", line=3)]
    matched = match_answers("x", queries, answers)
    assert [answer and answer.where for answer in matched.answers] == ["x, line 2"] and matched.num_unused == 2


def test_answers_to_other_queries_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"x, line 1: neither this line nor another answers .*'a dog runs' of video 'a'"
    ):
        match_answers("x", [_query(1)], [_answer(5, "z")])


def test_a_line_in_each_form() -> None:
    assert in_form(LINE, "full") is LINE
    assert set(in_form(LINE, "qvhighlights")) == {"qid", "query", "vid", "pred_relevant_windows"}
    assert in_form(LINE, "ranked_windows") == {
        "qid": 7,
        "vid": "a",
        "query": "a dog runs",
        "duration": 9.0,
        "relevant_windows": [[1.0, 3.0]],
        "predicted_window": [1.0, 2.0],
        "predicted_score": -3.0,
        "ranked_predicted_windows": [[4.0, 6.0, -1.0], [1.0, 2.0, -3.0]],
    }
