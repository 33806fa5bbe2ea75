"""Runs in processes of their own: the same whatever happens to the command, and each done once."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.lab import pool
from pps_fast.lab.experiment import design_of, plan
from pps_fast.lab.pool import Outcome, ProcessPool, job_options, run_jobs
from pps_fast.lab.runs import RESULT_FILE, Run, plan_run
from pps_fast.runs.checkpoint import describe_data
from pps_fast.runs.lock import owning
from tests.support.lab_experiments import CONFIG, contents, start_ablate, wait_for, wait_for_step

# the full model and two other strategies of pulling
TABLE = ["table4b", "--no-plots", "--jobs", "2"]


def run_in_order(runs: list[Run], directory: Path, updates: int = 5) -> Outcome:
    """Trains runs in a directory, one at a time."""
    options = job_options(directory, "cpu", 1)
    return run_jobs(runs, {run.name: updates for run in runs}, options, ProcessPool(options, [None]))


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
    # a run may have been finished before the kill; a process that has just begun would not notice the signal
    wait_for(process, lambda: output.read_text().count("3 runs, ") == 2 and any(out.glob(f"runs/*/{RESULT_FILE}")))
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
    outcome = run_in_order(runs, tmp_path / "whole")
    assert not outcome.failed and outcome.stopped_by is None
    assert contents(out) == contents(tmp_path / "whole") and len(contents(out)) == 3


def test_failure_of_one_run_is_reported_and_does_not_lose_the_others(tmp_path, capsys):
    configs = {"bad": override(CONFIG, {"train.keep": "validation"}), "good": CONFIG}
    bad, good = (plan_run(config, {"sha256": "x"}, 1, None, name) for name, config in configs.items())
    outcome = run_in_order([bad, good], tmp_path)
    assert outcome.stopped_by is None and list(outcome.failed) == [bad.name]
    assert "needs a validation split" in outcome.failed[bad.name] and f"{bad.name}.log" in outcome.failed[bad.name]
    assert (tmp_path / "runs" / good.name / RESULT_FILE).is_file()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("[1/2] FAILED: bad: ") and lines[2] == "[2/2] finished: good"


def test_run_whose_process_is_killed_is_a_failure_of_that_run(tmp_path, monkeypatch):
    run = plan_run(CONFIG, {"sha256": "x"}, 1, None, "x")
    start = ProcessPool.start

    def start_and_kill(pool: ProcessPool, run: Run) -> str:
        place = start(pool, run)
        for process in pool._processes.values():
            process.kill()
        return place

    monkeypatch.setattr(ProcessPool, "start", start_and_kill)
    outcome = run_in_order([run], tmp_path)
    assert outcome.failed[run.name].startswith("ended by SIGKILL (see ")


def test_a_run_that_another_command_has_is_left_to_it_and_taken_up_when_it_lets_go(tmp_path, capsys, monkeypatch):
    first, second = (plan_run(CONFIG, {"sha256": name}, 1, None, name) for name in ("first", "second"))
    monkeypatch.setattr(ProcessPool, "recheck_s", 0.1)
    wait, held = ProcessPool.wait, ExitStack()

    def release_at_the_end(pool: ProcessPool) -> list:
        if (tmp_path / "runs" / second.name / RESULT_FILE).exists():
            held.close()
        return wait(pool)

    monkeypatch.setattr(ProcessPool, "wait", release_at_the_end)
    with held:
        held.enter_context(owning(tmp_path / "runs" / first.name))
        assert not run_in_order([first, second], tmp_path).failed
    lines = capsys.readouterr().out.splitlines()
    assert re.match(rf"in use by process {os.getpid()} on \S+, and left to it: first$", lines[1])
    assert lines[2].startswith("[1/2] finished: second") and lines[3] == "[2/2] finished: first" and len(lines) == 4


def test_two_commands_share_the_runs_and_both_end_with_all_of_them(tmp_path):
    out, outputs = tmp_path / "out", [tmp_path / "first.txt", tmp_path / "second.txt"]
    argv = ["table4b", "--no-plots", "--jobs", "1", "--out", str(out)]
    commands = [start_ablate(argv, output) for output in outputs]
    for process in commands:
        process.join(180)
    texts = [output.read_text() for output in outputs]
    assert [process.exitcode for process in commands] == [0, 0], texts
    # a run that the other command ends between a look and the start of a process counts as trained by both
    trained = [len(re.findall(r"^\[\d/3\] finished: ", text, re.MULTILINE)) for text in texts]
    others = [len(re.findall(r"^\[\d/3\] finished by another command: ", text, re.MULTILINE)) for text in texts]
    before = [int(re.search(r"3 runs, (\d) of them finished before", text)[1]) for text in texts]
    assert [sum(counts) for counts in zip(trained, others, before, strict=True)] == [3, 3] and sum(trained) >= 3
    # each was trained once
    for metrics in (out / "runs").glob("*/metrics.jsonl"):
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        steps = [line["step"] for line in lines if "loss" in line]
        assert steps and steps == sorted(set(steps))
    assert (out / "table4b.json").is_file()


def test_a_job_that_is_preempted_is_continued_by_a_repeated_command(tmp_path, capsys, monkeypatch):
    run = plan_run(override(CONFIG, {"train.max_steps": 240, "train.epochs": 1000}), {"sha256": "x"}, 1, None, "x")
    whole = plan_run(run.config, {"sha256": "y"}, 1, None, "y")
    wait = ProcessPool.wait

    def stop_then_wait(pool: ProcessPool) -> list:
        if (tmp_path / "runs" / run.name / "latest.json").exists():
            pool.stop()
        return wait(pool)

    monkeypatch.setattr(ProcessPool, "wait", stop_then_wait)
    outcome = run_in_order([run], tmp_path, 60)
    expected = "stopped by SIGTERM; its last step is saved, and a repeated command continues it (see "
    assert outcome.failed[run.name].startswith(expected)
    assert f"[1/1] FAILED: x: {expected}" in capsys.readouterr().out
    saved = json.loads((tmp_path / "runs" / run.name / "latest.json").read_text())["step"]
    assert 0 < saved < 240
    monkeypatch.setattr(ProcessPool, "wait", wait)
    assert not run_in_order([run, whole], tmp_path, 60).failed
    trained = contents(tmp_path)
    assert trained[run.name] == trained[whole.name]


def test_a_run_of_a_command_that_is_silent_for_long_is_a_failure_with_a_way_out(tmp_path, monkeypatch):
    run = plan_run(CONFIG, {"sha256": "x"}, 1, None, "x")
    monkeypatch.setattr(pool, "_SILENT_S", 0.0)
    monkeypatch.setattr(ProcessPool, "recheck_s", 0.0)
    with owning(tmp_path / "runs" / run.name):
        outcome = run_in_order([run], tmp_path)
    text = outcome.failed[run.name]
    assert re.match(
        rf"in use by process {os.getpid()} on \S+, which has written nothing for 0 minutes; if it has", text
    )
    assert "lock.json and repeat the command" in text


def test_each_job_on_a_gpu_has_its_own_and_is_told_by_it(tmp_path, capsys, monkeypatch):
    runs = [plan_run(CONFIG, {"sha256": str(index)}, 1, None, f"run {index}") for index in range(3)]
    # what a process on a GPU does, without one
    options = job_options(tmp_path, "cpu", 1)
    outcome = run_jobs(runs, {run.name: 5 for run in runs}, options, ProcessPool(options, ["5", "7"]))
    assert not outcome.failed
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["[0/3] started on GPU 5: run 0", "[0/3] started on GPU 7: run 1"]
    finished = [line for line in lines if "finished on" in line]
    assert len(finished) == 3 and all(re.match(r"\[\d/3\] finished on GPU [57]: run \d", line) for line in finished)
