"""Runs in processes of their own: the same whatever happens to the command, and each done once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pps_fast.config_tree import override
from pps_fast.lab.pool import run_all
from pps_fast.lab.runs import RESULT_FILE, plan_run
from tests.lab.experiments import CONFIG, contents, start_ablate, wait_for_step

# the full model and two other strategies
TABLE = ["table4b"]


def _finish(argv: list[str], folder: Path) -> str:
    process = start_ablate(argv, folder / "output.txt")
    process.join(120)
    text = (folder / "output.txt").read_text()
    assert process.exitcode == 0, text
    return text


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    text = _finish([*TABLE, "--jobs", "1", "--out", str(folder)], folder)
    assert "3 runs, 0 of them finished before" in text and "[3/3] finished: " in text and "left\n" in text
    return folder


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_command_goes_on_where_it_stopped(number, status, uninterrupted, tmp_path):
    argv = [*TABLE, "--jobs", "2", "--out", str(tmp_path)]
    process = start_ablate(argv, tmp_path / "output.txt")
    wait_for_step(process, tmp_path, 3)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == status
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"runs/*/{RESULT_FILE}")}
    assert len(finished) < 3
    if number != signal.SIGKILL:
        assert f"stopped by {number.name}; to continue, repeat the command" in (tmp_path / "output.txt").read_text()
    _finish(argv, tmp_path)
    assert contents(tmp_path) == contents(uninterrupted)
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())


def test_finished_experiment_is_not_done_again(uninterrupted):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.glob("runs/*/*")}
    text = _finish([*TABLE, "--jobs", "1", "--out", str(uninterrupted)], uninterrupted)
    assert "3 runs, 3 of them finished before" in text
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.glob("runs/*/*")} == before


def test_failure_of_one_run_is_reported_and_does_not_lose_the_others(tmp_path, capsys):
    configs = {"bad": override(CONFIG, {"train.keep": "validation"}), "good": CONFIG}
    bad, good = (plan_run(config, {"sha256": "x"}, 1, None, name) for name, config in configs.items())
    outcome = run_all([bad, good], {bad.name: 5, good.name: 5}, tmp_path, jobs=1, device="cpu", threads=1)
    assert outcome.stopped_by is None and list(outcome.failed) == [bad.name]
    assert "needs a validation split" in outcome.failed[bad.name] and f"{bad.name}.log" in outcome.failed[bad.name]
    assert (tmp_path / "runs" / good.name / RESULT_FILE).is_file()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("[1/2] FAILED: bad: ") and lines[2] == "[2/2] finished: good"
