"""Summaries keep what the documents print, and are their own summaries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.summarize_results import Arguments, columns_of, main, read_rows, rounded, summarize, without_further_ranks

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
FILES = sorted(RESULTS.rglob("*.json"))


def _estimate(value: float) -> dict[str, Any]:
    return {"value": value, "runs": 2, "over_runs": [value - 1, value + 1], "over_videos": [value - 2, value + 2]}


def _table() -> dict[str, Any]:
    quantities = ("results", "difference", "against_blind", "shuffled", "against_shuffled")
    metrics = {name: _estimate(41.23456) for name in ("R@1 IoU>=0.5", "R@1 mIoU", "R@5 mIoU")}
    subsets = {"all": metrics, "single-event": metrics}
    rows = [
        {"label": label, "overrides": {}, "missing": [], "paper": {"R@1 mIoU": 33.33, "R@5 mIoU": 50.0}}
        | {"runs": [{"seed": 8, "fold": None, "values": {}}] * 2}
        | dict.fromkeys(quantities, subsets)
        for label in ("full", "other")
    ]
    data = {"name": "planted", "sha256": "ab", "protocol": "all", "provenance": {"x": 1}}
    return {"format": "pps_fast.lab.table", "reference": "full", "data": data, "rows": rows} | {
        "blind": subsets,
        "human": {"one person": metrics},
    }


def test_a_table_keeps_r1_of_all_samples_and_the_mean_of_each_kind_with_both_intervals() -> None:
    short = summarize(_table())
    full, other = short["rows"]
    assert set(full["results"]["all"]) == {"R@1 IoU>=0.5", "R@1 mIoU"}
    assert set(full["results"]["single-event"]) == set(full["difference"]["single-event"]) == {"R@1 mIoU"}
    assert full["results"]["all"]["R@1 mIoU"] == {
        "value": 41.235,
        "over_runs": [40.235, 42.235],
        "over_videos": [39.235, 43.235],
    }
    # the control is that of the reference
    assert "shuffled" in full and "shuffled" not in other
    assert len(full["runs"]) == 2 and full["paper"] == {"R@1 mIoU": 33.33}


@pytest.mark.parametrize("value", [66.85000000000002, 0.9166666666666665, 12.3449999, -0.00449999, 1 / 3])
def test_a_rounded_number_prints_as_before(value: float) -> None:
    (short,) = rounded([value])
    assert [f"{short:.1f}", f"{short:.2f}"] == [f"{value:.1f}", f"{value:.2f}"]
    assert short == value or len(str(short)) < len(str(value))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_tracked_result_is_its_own_summary(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert summarize(record) == record


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"what": "step", "seconds": 1.5, "commit": "a"}, {"what": "step", "commit": "b", "gflop": 2.0}]
    file = tmp_path / "full" / "steps_cpu.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    main(Arguments((file,), out=tmp_path))
    assert read_rows(tmp_path / "steps_cpu.json") == read_rows(file) == rows
    assert columns_of(rows)["common"] == {"what": "step"}


def test_of_ops_the_times_of_both_passes_are_kept() -> None:
    rows = [{"op": "push", "mode": mode, "seconds_median": 0.1, "gb_per_s": 3.0} for mode in ("forward", "both")]
    assert columns_of(rows)["common"] == {"op": "push", "mode": "both", "seconds_median": 0.1}


def test_markdown_keeps_the_tables_of_one_answer_and_all_other_words(tmp_path: Path) -> None:
    tables = ["| R@1, % | runs |\n| --- |\n| a | 1 |", "| R@5, % | runs |\n| --- |\n| a | 2 |"]
    text = "# t\n\n" + "\n\n".join(
        [tables[0], tables[1], "| R@3, minus 'a' | x |\n| b | 3 |", "| % | R@5 |\n| c | 4 |\n"]
    )
    short = without_further_ranks(text)
    assert tables[0] in short and "| % | R@5 |" in short and "| a | 2 |" not in short and "| b | 3 |" not in short
    (tmp_path / "t.md").write_text(text, encoding="utf-8")
    main(Arguments(files=(tmp_path / "t.md",), out=tmp_path / "out"))
    assert (tmp_path / "out" / "t.md").read_text(encoding="utf-8") == short == without_further_ranks(short)


def test_tracked_markdown_of_tables_is_its_own_summary() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (RESULTS / "lab").glob("*.md")]
    assert len(texts) > 10 and all(without_further_ranks(text) == text for text in texts)
