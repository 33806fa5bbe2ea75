"""From tables to files: however many processes make the runs, and again from their results alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pps_fast.config_tree import override
from pps_fast.lab import command
from pps_fast.lab.command import run_tables
from pps_fast.lab.experiment import Design, LabOptions
from pps_fast.lab.tables import Table, TableRow
from tests.support.lab_experiments import CONFIG

DESIGN = Design(seeds=(1, 2), folds=(None,))
ROWS = [
    TableRow(label=label, config=override(CONFIG, {"losses.pull": pull})) for label, pull in (("full", 5), ("off", 0))
]
TABLE = Table(name="small", title="two rows", preset="tiny", overrides={}, rows=ROWS, reference=0)


def _run(out: Path, table: Table = TABLE, design: Design = DESIGN, **options: Any) -> int:
    return run_tables([table], design, LabOptions(out=out, device="cpu", plots=False, **options))


@pytest.fixture(scope="module")
def one_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one_job")
    assert _run(out, jobs=1) == 0
    return out


def _without_times(out: Path) -> dict[str, Any]:
    record = json.loads((out / "small.json").read_text())
    for row in record["rows"]:
        for run in row["runs"]:
            del run["train_s"]
    return record


def test_two_processes_give_what_one_gives(one_job, tmp_path, capsys):
    assert _run(tmp_path, jobs=2) == 0
    assert _without_times(tmp_path) == _without_times(one_job)
    text = capsys.readouterr().out
    assert text.startswith("4 runs, 0 of them finished before\n[1/4] finished: small '") and "[4/4] finished" in text
    assert "small: two rows\n" in text and "minus 'full'" in text and "written: " in text
    record = _without_times(one_job)
    assert [row["results"]["all"]["R@1 mIoU"]["runs"] for row in record["rows"]] == [2, 2]
    assert record["rows"][0]["results"] != record["rows"][1]["results"]


def test_tables_come_again_byte_by_byte_without_data_or_training(one_job, monkeypatch):
    files = {path: path.read_bytes() for path in one_job.glob("small.*")}
    assert len(files) == 3
    for path in files:
        path.unlink()
    monkeypatch.setattr(command, "load_once", lambda configs: pytest.fail("read the data set"))
    assert _run(one_job, tables_only=True) == 0
    assert {path: path.read_bytes() for path in one_job.glob("small.*")} == files


def test_more_seeds_add_runs_and_equal_runs_serve_other_tables(one_job, capsys):
    assert _run(one_job, replace(TABLE, name="other", rows=ROWS[:1])) == 0
    assert "2 runs, 2 of them finished before" in capsys.readouterr().out
    assert _run(one_job, replace(TABLE, name="other", rows=ROWS[:1]), Design(seeds=(1, 2, 3), folds=(None,))) == 0
    assert "3 runs, 2 of them finished before" in capsys.readouterr().out


def test_tables_of_unfinished_experiments_say_so(one_job):
    table, design = replace(TABLE, name="part"), Design(seeds=(1, 7), folds=(None,))
    assert _run(one_job, table, design, tables_only=True) == 0
    record = json.loads((one_job / "part.json").read_text())
    assert [row["missing"] for row in record["rows"]] == [[[7, None]]] * 2


def test_runs_that_another_version_made_otherwise_are_not_taken(one_job, tmp_path):
    run = sorted((one_job / "runs").glob("seed1_*/"))[0]
    (copy := tmp_path / "runs" / run.name).mkdir(parents=True)
    for path in run.glob("*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    config["losses"]["pull"] = 3.0
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"'losses.pull': 3.0\} by another version"):
        _run(tmp_path, tables_only=True)


def test_tables_without_any_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="finished runs on data sets: none"):
        _run(tmp_path, tables_only=True)


def test_failed_runs_are_named_and_the_others_make_the_table(tmp_path, capsys):
    bad = TableRow(label="bad", config=override(CONFIG, {"train.keep": "validation"}))
    assert _run(tmp_path, replace(TABLE, rows=[ROWS[0], bad]), Design(seeds=(1,), folds=(None,)), jobs=1) == 1
    text = capsys.readouterr().out
    assert "1 of the runs failed" in text and "needs a validation split" in text.split("1 of the runs failed")[1]
    record = json.loads((tmp_path / "small.json").read_text())
    assert [len(row["runs"]) for row in record["rows"]] == [1, 0] and record["rows"][1]["missing"] == [[1, None]]
    assert "NOT COMPLETE: 'bad' lacks seed 1" in (tmp_path / "small.md").read_text()
