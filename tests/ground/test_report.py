"""What is printed of answers: tables and JSON, and "not found"."""

from __future__ import annotations

import json

from pps_fast.ground.answers import Answer, Moment
from pps_fast.ground.report import as_json, format_answer, format_json, format_lines


def _answer(match: float | None = 0.3, start_s: float | None = 2.0, **options) -> Answer:
    end_s = None if start_s is None else 6.04
    moment = Moment(video="v", start=0.1, end=0.3, start_s=start_s, end_s=end_s, score=7.0, match=match, clarity=match)
    return Answer(sentence="person laughs", moments=(moment,), **options)


def test_a_table_has_seconds_or_percent_and_names_what_was_not_read() -> None:
    text = format_answer(_answer(0.9, unknown_words=("yak",), num_cut=2), 0.5, None)
    assert "yak" in text and "the last 2 words were not read" in text and "not found" not in text
    assert text.splitlines()[-1].split() == ["v", "2.0", "s", "6.0", "s", "0.90", "0.90", "7"]
    assert format_answer(_answer(None, None), 0.5, None).splitlines()[-1].split() == "v 10 % 30 % - - 7".split()


def test_an_answer_below_the_least_match_is_not_found_and_an_unknown_match_is_neither() -> None:
    assert "not found: no match reaches 0.5" in format_answer(_answer(0.3), 0.5, None)
    assert "not found" not in format_answer(_answer(0.3), 0.2, None)
    assert [as_json(_answer(match), 0.5)["is_found"] for match in (0.3, 0.6, None)] == [False, True, None]


def test_json_is_one_document_or_a_line_for_each_sentence() -> None:
    answers = [_answer(0.3), _answer(0.6)]
    document = json.loads(format_json(answers, {"num_videos": 1}, 0.5))
    assert document["num_videos"] == 1 and [one["is_found"] for one in document["answers"]] == [False, True]
    lines = format_lines(answers, 0.5).splitlines()
    assert [json.loads(line) for line in lines] == document["answers"]
