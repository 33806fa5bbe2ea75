"""Markdown and CSV of a record: every figure beside its interval, published ones apart, the same bytes each time."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
import torch

from pps_fast.ablations import PAPER
from pps_fast.lab.report import CSV_COLUMNS, format_csv, format_markdown, headline, interval_of, write_table
from pps_fast.lab.tables import build_table
from tests.support.lab_results import DESIGN, table


@pytest.fixture(scope="module")
def record() -> dict:
    people = {("v0", "a then b"): torch.tensor([[0.0, 0.5]] * 5, dtype=torch.float64)}
    return build_table(table(), DESIGN, people)


def test_markdown_has_rows_differences_blind_rows_control_and_people(record):
    text = format_markdown(record)
    assert text.startswith("# table5: losses\n") and "A note." in text
    assert "| R@1, % | runs | IoU>=0.3 | IoU>=0.5 | IoU>=0.7 | mIoU |" in text
    assert "| R@1, minus 'full model' |" in text and "| -13.33 [-27.7, +1.0] |" in text
    for subset in (
        "All samples (8 pairs",
        "Samples: single-event (6",
        "Samples: multi-event (2",
        "Samples: re-annotated (2",
    ):
        assert f"## {subset}" in text
    families = text.count("\n| R@1, % |") + text.count("\n| R@3, % |") + text.count("\n| R@5, % |")
    assert text.count("\n| best blind baseline |") == text.count("\n| full model, shuffled queries |") == families
    assert text.count("\n| one person |") == text.count("\n| best of five people |") == 1
    assert "covers other seeds and folds" in text and "a machine" in text and "c0ffee" in text


def test_single_runs_are_not_called_different(record):
    rows = [replace(row, runs={(1, 0): row.runs[1, 0]}) for row in table().rows]
    single = build_table(table(rows=rows), DESIGN)
    text = format_markdown(single)
    # every sample is worse by 20 points, so that no resampling of videos would see the doubt
    assert single["rows"][1]["difference"]["all"]["R@1 mIoU"]["over_videos"] == pytest.approx([-20, -20])
    assert "| -20.00 (one run) |" in text and "| -20.00 [" not in text
    assert "-20.00 (one run)" in headline(single)
    for shown in (text, headline(single)):
        assert "was not measured here (one run a row and fold), so that no rows are called different." in shown


def test_the_spread_of_seeds_stands_beside_the_rows(record):
    # t with 3 degrees 3.182446: 3.182446 * sqrt(2) * 4.0825
    sentence = (
        "One run's R@1 mIoU has a standard deviation of 4.08 points over seeds and their rounding (3 degrees of "
        "freedom): two runs of one row lie more than 18.4 apart 1 time in 20."
    )
    assert f"* {sentence} Another CPU or another number of threads counts as another seed.\n" in format_markdown(record)
    assert headline(record).endswith(sentence)
    # as tables from before have none
    assert "was not measured" in format_markdown({name: x for name, x in record.items() if name != "spread"})


def test_markdown_says_what_is_missing(record):
    assert "* NOT COMPLETE: 'without pull' lacks seed 2 fold 1." in format_markdown(record)


def test_published_figures_have_a_table_of_their_own(record):
    ours, published = format_markdown(record).split("## Published figures: ")
    assert "37.59" not in ours and published.startswith(PAPER) and "| full model | 37.59 |" in published
    assert "37.59" not in format_csv(record)
    for row in record["rows"]:
        row = dict(row, paper={})
        assert "Published" not in format_markdown({**record, "rows": [row], "reference": row["label"]})


def test_csv_has_every_summary_once(record):
    rows = list(csv.DictReader(io.StringIO(format_csv(record))))
    assert tuple(rows[0]) == CSV_COLUMNS
    keys = [(row["subset"], row["row"], row["metric"], row["quantity"]) for row in rows]
    assert len(set(keys)) == len(keys)
    row = rows[keys.index(("all", "without pull", "R@1 mIoU", "difference"))]
    expected = record["rows"][1]["difference"]["all"]["R@1 mIoU"]
    assert float(row["value"]) == expected["value"] and row["interval"] == "over runs"
    assert [float(row["low"]), float(row["high"])] == expected["over_runs"]
    assert ("re-annotated", "one person", "R@1 mIoU", "results") in keys


def test_interval_over_videos_is_shown_where_there_is_one_run():
    assert interval_of({"over_runs": None, "over_videos": [1.0, 2.0]}) == (1.0, 2.0)
    assert interval_of({"over_runs": [0.0, 3.0], "over_videos": [1.0, 2.0]}) == (0.0, 3.0)


def test_headline_is_a_line_a_row(record):
    lines = headline(record).splitlines()
    assert len(lines) == 7 and lines[0].startswith("table5: ") and "R@1 mIoU" in lines[1]
    assert "55.00" in lines[3] and "-13.33 [-27.7, +1.0]" in lines[4] and "50.00" in lines[5]


def test_files_are_the_same_bytes_again(record, tmp_path):
    paths = write_table(tmp_path / "new", record)
    assert [path.name for path in paths] == ["table5.json", "table5.md", "table5.csv"]
    before = [path.read_bytes() for path in paths]
    # from the JSON alone
    again = write_table(tmp_path / "again", json.loads(paths[0].read_text()))
    assert [path.read_bytes() for path in again] == before


def test_data_that_recorded_no_protocol_are_said_to(record):
    data = {name: value for name, value in record["data"].items() if name != "protocol"}
    assert f"protocol {record['data']['protocol']}, sha256" in format_markdown(record)
    assert "protocol not recorded, sha256" in format_markdown({**record, "data": data})
