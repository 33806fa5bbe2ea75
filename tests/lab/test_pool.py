"""Runs in processes of their own: the same whatever happens to the command, and each done once."""

from __future__ import annotations

import os
import signal

from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.lab.experiment import design_of, plan
from pps_fast.lab.pool import _Pool, run_jobs
from pps_fast.lab.runs import RESULT_FILE, Run, plan_run
from pps_fast.runs.checkpoint import describe_data
from tests.support.lab_experiments import CONFIG, contents, start_ablate, wait_for, wait_for_step

# the full model and two other strategies of pulling
TABLE = ["table4b", "--no-plots", "--jobs", "2"]


def test_command_that_is_killed_and_interrupted_ends_like_one_that_is_not(tmp_path):
    out, output = tmp_path / "out", tmp_path / "output.txt"
    argv = [*TABLE, "--out", str(out)]
    process = start_ablate(argv, output)
    wait_for_step(process, out, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and not list(out.glob("*.json"))

    # one at a time, so that when the first is seen to be finished at least one is not, however busy the machine
    process = start_ablate([*argv, "--jobs", "1"], output)
    wait_for(process, lambda: any(out.glob(f"runs/*/{RESULT_FILE}")))
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGINT
    assert "stopped by SIGINT; to continue, repeat the command" in output.read_text()
    finished = {path: path.stat().st_mtime_ns for path in out.glob(f"runs/*/{RESULT_FILE}")}
    assert 1 <= len(finished) < 3

    process = start_ablate(argv, output)
    process.join(120)
    text = output.read_text()
    assert process.exitcode == 0, text
    assert f"3 runs, {len(finished)} of them finished before" in text and "[3/3] finished: " in text
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert (out / "table4b.json").is_file()

    described = describe_data(load_data(CONFIG.data))
    rows = {name: override(CONFIG, {"losses.pull_strategy": name}) for name in ("all", "middle", "distant")}
    runs = plan(rows, design_of(CONFIG, 1, ()), described)
    outcome = run_jobs(runs, {run.name: 5 for run in runs}, tmp_path / "whole", jobs=1, device="cpu", threads=1)
    assert not outcome.failed and outcome.stopped_by is None
    assert contents(out) == contents(tmp_path / "whole") and len(contents(out)) == 3


def test_failure_of_one_run_is_reported_and_does_not_lose_the_others(tmp_path, capsys):
    configs = {"bad": override(CONFIG, {"train.keep": "validation"}), "good": CONFIG}
    bad, good = (plan_run(config, {"sha256": "x"}, 1, None, name) for name, config in configs.items())
    outcome = run_jobs([bad, good], {bad.name: 5, good.name: 5}, tmp_path, jobs=1, device="cpu", threads=1)
    assert outcome.stopped_by is None and list(outcome.failed) == [bad.name]
    assert "needs a validation split" in outcome.failed[bad.name] and f"{bad.name}.log" in outcome.failed[bad.name]
    assert (tmp_path / "runs" / good.name / RESULT_FILE).is_file()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("[1/2] FAILED: bad: ") and lines[2] == "[2/2] finished: good"


def test_run_whose_process_is_killed_is_a_failure_of_that_run(tmp_path, monkeypatch):
    run = plan_run(CONFIG, {"sha256": "x"}, 1, None, "x")
    start = _Pool.start

    def start_and_kill(pool: _Pool, run: Run) -> None:
        start(pool, run)
        for process in pool.active:
            process.kill()

    monkeypatch.setattr(_Pool, "start", start_and_kill)
    outcome = run_jobs([run], {run.name: 5}, tmp_path, jobs=1, device="cpu", threads=1)
    assert outcome.failed[run.name].startswith("ended by SIGKILL (see ")
