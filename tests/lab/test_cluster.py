"""Jobs of submitit, by its executor for this machine: they train what processes do, and go on after a stop."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from pps_fast.config_tree import override
from pps_fast.lab.cluster import ClusterPool, require_submitit, slurm_options
from pps_fast.lab.pool import Outcome, ProcessPool, job_options, run_jobs
from pps_fast.lab.runs import Run, plan_run
from tests.support.lab_experiments import CONFIG, contents

pytest.importorskip("submitit", reason="needs submitit, the extra `cluster`")


def run_by_submitit(runs: list[Run], directory: Path, updates: int) -> Outcome:
    options = job_options(directory, "cpu", 1)
    pool = ClusterPool(options, "local", [None] * len(runs), {})
    pool.recheck_s = 0.1
    return run_jobs(runs, {run.name: updates for run in runs}, options, pool)


def test_jobs_end_as_processes_do_and_a_failure_is_of_its_run_alone(tmp_path, capsys):
    good = plan_run(CONFIG, {"sha256": "x"}, 1, None, "good")
    bad = plan_run(override(CONFIG, {"train.keep": "validation"}), {"sha256": "x"}, 1, None, "bad")
    outcome = run_by_submitit([bad, good], tmp_path / "jobs", 5)
    assert outcome.stopped_by is None and list(outcome.failed) == [bad.name]
    assert "needs a validation split" in outcome.failed[bad.name]
    text = capsys.readouterr().out
    number = re.search(r"finished as job (\d+): good", text)[1]
    assert re.search(rf"started as job {number}: good", text)
    options = job_options(tmp_path / "processes", "cpu", 1)
    assert not run_jobs([good], {good.name: 5}, options, ProcessPool(options, [None])).failed
    assert contents_of(tmp_path / "jobs", good) == contents_of(tmp_path / "processes", good)


def contents_of(directory: Path, run: Run) -> dict[str, bytes]:
    """Returns what a run has learned and answered."""
    for other in (directory / "runs").iterdir():
        if other.is_dir() and other.name != run.name:
            other.rename(directory / other.name)
    return contents(directory)[run.name]


def test_a_job_that_is_put_back_into_the_queue_continues_and_one_that_is_stopped_waits_for_the_next_command(
    tmp_path, monkeypatch
):
    config = override(CONFIG, {"train.max_steps": 60})
    again, stopped, whole = (plan_run(config, {"sha256": name}, 1, None, name) for name in "abc")
    folder, wait, done = tmp_path / "runs", ClusterPool.wait, []

    def interrupt_then_wait(pool: ClusterPool) -> list:
        for place, run in pool.active.items():
            if run.name not in done and run is not whole and (folder / run.name / "latest.json").exists():
                done.append(run.name)
                controller = int(pool._jobs[place][0].job_id)
                (task,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
                # what Slurm sends before a time limit, by which submitit puts a job back; and what a preemption sends
                os.kill(int(task), signal.SIGUSR2 if run is again else signal.SIGTERM)
        return wait(pool)

    monkeypatch.setattr(ClusterPool, "wait", interrupt_then_wait)
    outcome = run_by_submitit([again, stopped, whole], tmp_path, 60)
    assert list(outcome.failed) == [stopped.name] and len(done) == 2
    assert outcome.failed[stopped.name].startswith("stopped by SIGTERM; its last step is saved")
    assert 0 < json.loads((folder / stopped.name / "latest.json").read_text())["step"] < 60
    assert not run_by_submitit([again, stopped, whole], tmp_path, 60).failed
    trained = contents(tmp_path)
    assert trained[again.name] == trained[stopped.name] == trained[whole.name]


def test_options_of_slurm_are_names_and_values_and_reach_its_executor(tmp_path, monkeypatch):
    options = slurm_options(["partition=gpu", "time=240", "constraint=a=b"])
    assert options == {"partition": "gpu", "time": 240, "constraint": "a=b"}
    for word in ("partition", "=x", "time=", "a b=c"):
        with pytest.raises(ValueError, match=f"--slurm '{word}': expected NAME=VALUE"):
            slurm_options([word])
    monkeypatch.setattr("pps_fast.lab.cluster.which", lambda name: name)
    monkeypatch.setattr("shutil.which", lambda name: name)
    pool = ClusterPool(job_options(tmp_path, "cuda", 1), "slurm", [None] * 3, {"partition": "gpu", "time": 240})
    assert pool.num_places == 3 and pool._executor.parameters["partition"] == "gpu"
    with pytest.raises(ValueError, match="--slurm: .*nonsense"):
        ClusterPool(job_options(tmp_path, "cuda", 1), "slurm", [None], {"nonsense": 1})


def test_without_submitit_or_slurm_it_is_said_what_to_install(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--executor slurm: .*sbatch"):
        ClusterPool(job_options(tmp_path, "cuda", 1), "slurm", [None], {})
    monkeypatch.setattr("pps_fast.lab.cluster.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--executor: needs submitit, which is not installed; install the extra"):
        require_submitit()
