"""Runs training jobs through submitit: on a Slurm cluster, or by the same means on this machine.

Each run is a job of its own. Jobs go on when this command ends; a repeated command leaves runs that are under way to
their jobs and waits for them. A job that the cluster stops for its time limit continues from its last checkpoint when
the cluster has put it back into the queue.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from pps_fast.lab.jobs import JobOptions, work_on
from pps_fast.lab.options import Executor
from pps_fast.lab.pool import POLL_S
from pps_fast.lab.runs import Run

# submitit stops jobs of this machine after two minutes without a limit; a month
_LOCAL_LIMIT_MIN = 60 * 24 * 30


def require_submitit() -> None:
    """Refuses to go on without submitit.

    Raises:
        ValueError: saying how to install it.
    """
    if find_spec("submitit") is None:
        raise ValueError(
            "--executor: needs submitit, which is not installed; install the extra `cluster`: "
            'pip install -c constraints.txt -e ".[cluster]"'
        )


def slurm_options(words: Sequence[str]) -> dict[str, int | str]:
    """Returns options of jobs from words NAME=VALUE; whole numbers become such.

    Raises:
        ValueError: for a word of another form.
    """
    options: dict[str, int | str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name.isidentifier() and sign and value):
            raise ValueError(f"--slurm {word!r}: expected NAME=VALUE, like partition=gpu or time=240")
        options[name] = int(value) if value.isdecimal() else value
    return options


class Work:
    """A run as submitit takes it: called in the job, and again after the cluster has put the job back."""

    def __call__(self, run: Run, options: JobOptions, gpu: str | None) -> int:
        """Works on the run; returns the exit status of `work_on`."""
        return work_on(run, options, gpu)

    def checkpoint(self, *arguments: Any) -> Any:
        """Returns what a job does that is put back into the queue: the same, from the run's last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class ClusterPool:
    """Jobs of submitit.

    Raises:
        ValueError: where there is no Slurm, or for parameters that it does not have.

    Args:
        options: of the jobs.
        executor: 'slurm', or 'local' for processes of this machine.
        gpus: as for `ProcessPool`; on Slurm their number alone counts, as jobs use the GPUs that they are given.
        parameters: of Slurm's jobs, see `slurm_options`.
    """

    def __init__(
        self, options: JobOptions, executor: Executor, gpus: Sequence[str | None], parameters: Mapping[str, int | str]
    ) -> None:
        import submitit

        self.options, self.num_places, self._is_local = options, len(gpus), executor == "local"
        folder = options.folder.parent / "jobs"
        if self._is_local:
            self._executor: Any = submitit.LocalExecutor(folder)
            self._executor.update_parameters(timeout_min=_LOCAL_LIMIT_MIN)
        else:
            self._executor = _slurm_executor(folder, parameters)
        self.recheck_s = 3.0 if self._is_local else 60.0
        self._gpus = {index: gpu if self._is_local else None for index, gpu in enumerate(gpus)}
        self.active: dict[str, Run] = {}
        self._jobs: dict[str, tuple[Any, int]] = {}

    def start(self, run: Run) -> str:
        taken = {index for _, index in self._jobs.values()}
        index = next(index for index in itertools.count() if index not in taken)
        job = self._executor.submit(Work(), run, self.options, self._gpus[index])
        place = f"as job {job.job_id}" + ("" if self._gpus[index] is None else f" on GPU {self._gpus[index]}")
        self.active[place], self._jobs[place] = run, (job, index)
        return place

    def wait(self) -> list[tuple[Run, str, int | None]]:
        if not any(job.done() for job, _ in self._jobs.values()):
            time.sleep(POLL_S)
        ended: list[tuple[Run, str, int | None]] = []
        for place, (job, _) in list(self._jobs.items()):
            if job.done():
                del self._jobs[place]
                ended.append((self.active.pop(place), place, _status_of(job)))
        return ended

    def stop(self) -> None:
        for job, _ in self._jobs.values():
            # of jobs of this machine it is a process; submitit's own way would kill it after a second
            os.kill(int(job.job_id), signal.SIGTERM) if self._is_local else job.cancel()

    def kill(self) -> None:
        for job, _ in self._jobs.values():
            job.cancel()


def _slurm_executor(folder: Path, parameters: Mapping[str, int | str]) -> Any:
    import submitit

    if which("srun") is None or which("sbatch") is None:
        raise ValueError("--executor slurm: this machine has no sbatch; run the command where jobs are submitted")
    executor = submitit.SlurmExecutor(folder)
    try:
        executor.update_parameters(**parameters)
    except ValueError as error:
        raise ValueError(f"--slurm: {' '.join(str(error).split())}") from error
    return executor


def _status_of(job: Any) -> int | None:
    """Returns the exit status of the work of a job that has ended, None where the job ended before its work did."""
    # submitit's error for a job without a result is of a class of its own
    return None if job.exception() is not None else job.result()
