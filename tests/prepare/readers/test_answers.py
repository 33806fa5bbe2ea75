"""Files of answers: every form of the field, and lines that are refused with their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pps_fast.eval.answers import MAX_WINDOWS
from pps_fast.prepare.readers.answers import read_answers, read_queries
from tests.support.answers import ANSWERS, QUERIES, ranked, write_lines


def test_the_forms_say_the_same(tmp_path: Path) -> None:
    submission = read_answers(write_lines(tmp_path / "x.jsonl", ANSWERS))
    assert read_answers(write_lines(tmp_path / "x.jsonl", [ranked(row) for row in ANSWERS])) == submission
    second = submission[1]
    assert (second.query_id, second.video_id, second.sentence) == (2, "a", "a dog runs")
    # the first window is the answer, the ranking goes by score
    assert second.chosen == (10.0, 25.0) and second.windows == ((10.0, 20.0), (10.0, 25.0))
    assert second.where == "x.jsonl, line 2"


def test_windows_without_scores_keep_their_order_and_ten_count(tmp_path: Path) -> None:
    windows = [[float(start), start + 1.0] for start in range(15)]
    rows = [{"qid": "a", "pred_relevant_windows": windows}, {"qid": "b", "pred_relevant_windows": []}]
    first, second = read_answers(write_lines(tmp_path / "x.jsonl", rows))
    assert first.windows == tuple((start, end) for start, end in windows[:MAX_WINDOWS]) and first.chosen == (0.0, 1.0)
    assert second.chosen is None and second.windows == ()


def test_queries_come_from_every_form_of_annotations(tmp_path: Path) -> None:
    queries = read_queries(write_lines(tmp_path / "q.jsonl", QUERIES), (), "full")
    assert [len(query.windows) for query in queries] == [2, 1, 1, 0]
    assert [query.is_scored for query in queries] == [True, True, True, False]
    (tmp_path / "sta.txt").write_text("a 2.0 8.0##door opens.\na 15.0 21.0##a dog runs\n", encoding="utf-8")
    (tmp_path / "lengths.csv").write_text("id,length\na,20\n", encoding="utf-8")
    for protocol, expected in (("full", [(15.0, 20.0)]), ("filtered", []), ("as_is", [(15.0, 21.0)])):
        first, second = read_queries(tmp_path / "sta.txt", [tmp_path / "lengths.csv"], protocol)
        assert first.is_scored and list(second.windows) == expected and second.is_counted == bool(expected)


def _row(**changes: Any) -> str:
    return json.dumps({**ANSWERS[0], **changes})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "x.jsonl, line 2: not a line of JSON"),
        ("[" * 100_000, "x.jsonl, line 2: not a line of JSON"),
        ("[1, 2]", "line 2: no answer, which has pred_relevant_windows or ranked_predicted_windows"),
        ('{"qid": 1}', "line 2: no answer, which has"),
        (_row(qid=1), "line 2: a second answer to query '1', after line 1"),
        (_row(qid=True), "line 2: not an answer as expected"),
        (_row(qid=[9] * 9), "line 2: not an answer as expected"),
        (_row(qid=9, vid=7), "line 2: not an answer as expected"),
        (_row(qid=9, query="a\0b"), "line 2: not an answer as expected"),
        (_row(qid=9, query="\ud800"), "line 2: not an answer as expected"),
        (_row(qid=None, vid=None), "neither qid nor vid and query"),
        (_row(qid=9, pred_relevant_windows={"0": 1}), "windows are no list"),
        (_row(qid=9, pred_relevant_windows=[3.0, 4.0]), "windows are no list"),
        (_row(qid=9, pred_relevant_windows=[[1.0]]), "a window of 1 numbers"),
        (_row(qid=9, pred_relevant_windows=[[5.0, 4.0, 0.1]]), "a window from 5 to 4"),
        (_row(qid=9, pred_relevant_windows=[[1.0, float("nan"), 0.1]]), "line 2: not an answer as expected"),
        (_row(qid=9, pred_relevant_windows=[[1.0, 2.0, float("inf")]]), "line 2: not an answer as expected"),
        (_row(qid=9, pred_relevant_windows=[["1", 2.0, 0.5]]), "line 2: not an answer as expected"),
        (_row(qid=9, pred_relevant_windows=[[1, 10**400, 0.5]]), "line 2: not an answer as expected"),
        (_row(qid=9, pred_relevant_windows=[[1, 2], [1, 2, 0.5]]), "some windows have a score and some have none"),
        (json.dumps({"qid": 9, "ranked_predicted_windows": [], "predicted_window": 3}), "windows are no list"),
        (_row(qid="x" * 10**6, vid=7), "line 2: not an answer as expected"),
    ],
)
def test_a_bad_line_is_refused_by_its_number_in_one_sentence(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(ANSWERS[0]) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read_answers(path)
    assert message in str(caught.value) and "x.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty; expected a line of JSON"),
        (b"\n \n", "empty; expected a line of JSON"),
        (b"\xff\x00", "not text"),
        (b'[\n{"qid": 1}\n]', "line 1: not a line of JSON"),
    ],
)
def test_a_bad_file_is_refused_by_its_name(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_answers(path)
    assert "x.jsonl" in str(caught.value)


def test_a_folder_and_bad_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder where a file was expected"):
        read_answers(tmp_path)
    rows = [{**QUERIES[0], "relevant_windows": [[5.0, 2.0]]}, {**QUERIES[1], "duration": 0}]
    with pytest.raises(ValueError, match=r"q.jsonl, line 2: duration 0.0 is not above 0 seconds; correct it$"):
        read_queries(write_lines(tmp_path / "q.jsonl", rows), (), "full")
    (tmp_path / "e.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="no annotated query"):
        read_queries(tmp_path / "e.jsonl", (), "full")
