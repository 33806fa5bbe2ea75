"""The spread of finished runs: over seeds, and over rounding alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import spread
from pps_fast.config_tree import override
from pps_fast.pipeline import train_and_evaluate
from tests.support.train_runs import small_config


def _run(seed: int, threads: int, value: float, **shared: Any) -> dict[str, Any]:
    row = {"seed": seed, "threads": threads, "schedule": "shared", "R@1 mIoU": value}
    return {"row": row, "shared": {"environment": {"cpu": "x"}, "data": "y", **shared}}


def test_seeds_and_rounding_are_told_apart():
    runs = [_run(seed, threads, value) for threads, values in ((1, (40, 44)), (2, (43, 40))) for seed, value in
            enumerate(values)]  # fmt: skip
    record = spread.summarize(runs)
    # deviations of 2 from the mean of two: 2 * sqrt(2)
    assert record["seeds"]["1 thread, shared"] == {"runs": 2, "mean": 42.0, "std": 2.83, "low": 40, "high": 44}
    # sqrt((9 + 16) / 2 / 2)
    assert record["rounding"] == {"2 threads, shared - 1 thread, shared": {"differences": [3.0, -4.0], "std": 2.5}}
    assert record["cpu"] == "x" and "+3.00 -4.00" in spread.format_record(record)


def test_runs_that_differ_otherwise_are_refused():
    with pytest.raises(ValueError, match="differ in more than seed, threads and schedule"):
        spread.summarize([_run(0, 1, 40.0), _run(0, 2, 41.0, config="another")])


def test_the_command_reads_run_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = small_config(train__max_steps=1)
    folders = []
    for seed, schedule in ((0, "shared"), (1, "shared"), (0, "plain")):
        folders.append(str(tmp_path / f"{seed}{schedule}"))
        changes = {"train.seed": seed, "reconstructor.schedule": schedule}
        train_and_evaluate(override(config, changes), folders[-1], device="cpu", threads=1, progress=False)
    out = tmp_path / "spread.json"
    assert spread.main([*folders, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [run["seed"] for run in record["rows"]] == [0, 1, 0] and record["metric"] in capsys.readouterr().out
    assert list(record["rounding"]) == ["1 thread, plain - 1 thread, shared"]
    assert spread.main([str(tmp_path), "--out", str(out)]) == 2
