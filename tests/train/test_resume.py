"""A run that was interrupted, by whatever means, ends bit for bit like one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pps_fast.runs.checkpoint import find_checkpoint
from pps_fast.runs.metrics_log import read_metrics
from pps_fast.runs.pointers import read_pointer
from tests.support.train_runs import SMALL, release, start_command, wait_for_step, weights

# 5 updates an epoch with a validation split, a checkpoint after every second update and after every epoch
OPTIONS = [
    "--preset=tiny",
    "--train.keep=validation",
    "--data.validation-fraction=0.2",
    *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()),
]
LAST_STEP = 10


def _finish(argv: list[str], folder: Path) -> None:
    process = start_command([*OPTIONS, *argv], folder / "output.txt")
    process.join(120)
    assert process.exitcode == 0, (folder / "output.txt").read_text()


def _metrics(run: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run)
    for line in lines:
        for timing in ("seconds", "samples_per_s"):
            line.pop(timing, None)
    return lines


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    _finish(["--out", str(folder / "run")], folder)
    return folder / "run"


def _assert_same(run: Path, expected: Path) -> None:
    assert weights(run) == weights(expected)
    assert list(weights(run)) == [
        "model.safetensors",
        "statistics.safetensors",
        "training.safetensors",
        "words.safetensors",
    ]
    assert find_checkpoint(run, "latest").name == f"step_{LAST_STEP:06d}"
    assert read_pointer(run, "best") == read_pointer(expected, "best")
    assert _metrics(run) == _metrics(expected)
    report = "evaluation_test.json"
    assert json.loads((run / report).read_text())["rows"] == json.loads((expected / report).read_text())["rows"]


def test_run_killed_at_several_steps_and_resumed_equals_the_uninterrupted_one(uninterrupted, tmp_path):
    run, resume = tmp_path / "run", []
    # before the first checkpoint, in the first epoch, after a checkpoint and one lost update in the second
    for step in (1, 4, 8):
        process = start_command([*OPTIONS, "--out", str(run), *resume], tmp_path / "output.txt", hold_at=step)
        wait_for_step(process, run, step)
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        resume = ["--resume"]
    assert read_pointer(run, "latest")["step"] < LAST_STEP
    _finish(["--out", str(run), "--resume"], tmp_path)
    steps = [line["step"] for line in read_metrics(run) if "loss" in line]
    assert steps == list(range(1, LAST_STEP + 1))
    _assert_same(run, uninterrupted)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_saves_the_current_step_and_resume_completes_the_run(number, status, uninterrupted, tmp_path):
    run, output = tmp_path / "run", tmp_path / "output.txt"
    process = start_command([*OPTIONS, "--out", str(run)], output, hold_at=3)
    wait_for_step(process, run, 3)
    os.kill(process.pid, number)
    release(output)
    process.join(60)
    assert process.exitcode == status
    assert "--resume" in output.read_text() and signal.Signals(number).name in output.read_text()
    assert read_pointer(run, "latest")["step"] == read_metrics(run)[-1]["step"] < LAST_STEP
    _finish(["--out", str(run), "--resume"], tmp_path)
    _assert_same(run, uninterrupted)


def test_directory_deleted_during_the_training_is_said_and_written_whole_again(uninterrupted, tmp_path):
    run, output = tmp_path / "run", tmp_path / "output.txt"
    process = start_command([*OPTIONS, "--out", str(run)], output, hold_at=3)
    wait_for_step(process, run, 3)
    shutil.rmtree(run)
    release(output)
    process.join(120)
    assert process.exitcode == 0, output.read_text()
    assert output.read_text().count("run: was deleted during the training") == 1
    assert weights(run) == weights(uninterrupted) and _metrics(run) == _metrics(uninterrupted)
    assert (run / "config.json").read_bytes() == (uninterrupted / "config.json").read_bytes()
    assert {path.name for path in run.iterdir()} == {path.name for path in uninterrupted.iterdir()}


def test_second_process_is_refused_and_the_first_is_untouched(uninterrupted, tmp_path):
    run, output = tmp_path / "run", tmp_path / "output.txt"
    process = start_command([*OPTIONS, "--out", str(run)], output, hold_at=3)
    wait_for_step(process, run, 3)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for more in ([], ["--resume"]):
        second = start_command([*OPTIONS, "--out", str(run), *more], tmp_path / "second.txt")
        second.join(60)
        assert second.exitcode == 2
    lines = (tmp_path / "second.txt").read_text().splitlines()
    assert [line for line in lines if f"error: {run}: in use by process {process.pid} on " in line] == lines
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    release(output)
    process.join(120)
    assert process.exitcode == 0
    _assert_same(run, uninterrupted)


def test_resuming_a_finished_run_changes_nothing(uninterrupted):
    before = {path: path.read_bytes() for path in uninterrupted.rglob("*.safetensors")}
    metrics = read_metrics(uninterrupted)
    _finish(["--out", str(uninterrupted), "--resume"], uninterrupted.parent)
    assert {path: path.read_bytes() for path in uninterrupted.rglob("*.safetensors")} == before
    assert read_metrics(uninterrupted) == metrics
