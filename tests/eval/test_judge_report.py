"""What is said of judged answers, in text, Markdown and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pps_fast.eval.answers import match_answers
from pps_fast.eval.judge import Judgment, judge
from pps_fast.eval.judge_report import format_judgment, write_judgment
from pps_fast.prepare.readers.answers import read_answers, read_queries
from tests.support.answers import ANSWERS, QUERIES, write_lines


def _judgment(folder: Path, is_clipped: bool = False) -> Judgment:
    queries = read_queries(write_lines(folder / "queries.jsonl", QUERIES), (), "full")
    files = {"all": ANSWERS, "few": ANSWERS[:1]}
    read = {name: read_answers(write_lines(folder / f"{name}.jsonl", rows)) for name, rows in files.items()}
    matched = [match_answers(name, queries, answers) for name, answers in read.items()]
    return judge(queries, matched, (0.5,), is_clipped=is_clipped, num_bootstrap=20)


def test_the_table_says_what_was_scored_and_how(tmp_path: Path) -> None:
    text = format_judgment(_judgment(tmp_path))
    assert "3 queries with 4 windows, 2 videos; 1 others have no times that count." in text
    assert "are scored as they are, not clipped (--clip clips): 1 of all, 0 of few." in text
    assert "few: 2 queries have no answer and count as missed." in text
    assert "all: 1 lines answer no scored query." in text
    assert "fitted on the scored queries of the other videos" in text and "No shuffled-query control" in text
    assert "are clipped to it: 1 of all" in format_judgment(_judgment(tmp_path, is_clipped=True))
    for name in ("R@1, % [95 %]", "R@2, % [95 %]", "mAP, % [95 %]", "all - best blind baseline", "all - few"):
        assert name in text
    assert "short, to 10 s (2)" in text and "middle" not in text
    assert "R@1 mIoU: against few, all is" in text


def test_answers_that_look_like_fractions_are_questioned(tmp_path: Path) -> None:
    rows = [{**ANSWERS[0], "pred_relevant_windows": [[0.1, 0.4, 0.9], [0.5, 1.0, 0.1]]}]
    queries = read_queries(write_lines(tmp_path / "queries.jsonl", QUERIES), (), "full")
    answers = read_answers(write_lines(tmp_path / "fractions.jsonl", rows))
    judgment = judge(queries, [match_answers("fractions", queries, answers)], (0.5,), num_bootstrap=20)
    assert "fractions: no window ends after 1 second." in format_judgment(judgment)
    assert "after 1 second" not in format_judgment(_judgment(tmp_path))


@pytest.mark.parametrize("columns", [60, 100])
def test_the_table_is_no_wider_than_the_terminal(columns: int, tmp_path: Path) -> None:
    text = format_judgment(_judgment(tmp_path), columns)
    assert max(map(len, text.splitlines())) <= columns


def test_files_have_every_figure_and_what_it_came_from(tmp_path: Path) -> None:
    judgment = _judgment(tmp_path)
    paths = write_judgment(tmp_path / "new" / "folder", judgment, {"annotations": {"file": "queries.jsonl"}})
    assert [path.name for path in paths] == ["judgment.json", "judgment.md"]
    record = json.loads(paths[0].read_text(encoding="utf-8"))
    assert record["rows"]["all"]["R@1 mIoU"]["value"] == judgment.rows["all"]["R@1 mIoU"].value
    assert record["paired"]["few"]["R@1 mIoU"]["row"] == "few"
    assert record["sources"] == {"annotations": {"file": "queries.jsonl"}} and record["num_missing"]["few"] == 2
    markdown = paths[1].read_text(encoding="utf-8")
    assert "| mAP, % [95 %] | 0.5 to 0.95 | IoU>=0.5 | IoU>=0.75 |" in markdown and judgment.headline in markdown
