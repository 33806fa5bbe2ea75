"""Runs training jobs in parallel; a failed job does not affect the others; a stopped job resumes.

Several commands, also of several machines on one file system, may work in the same directory: a run that another
command has is left to it, and waited for when nothing else is left.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from pps_fast.devices import Device
from pps_fast.lab.board import Board
from pps_fast.lab.jobs import IN_USE, JobOptions, reason_of, silence_s, work_on
from pps_fast.lab.runs import Run
from pps_fast.runs.environment import source_commit
from pps_fast.runs.lock import owner_of
from pps_fast.train.interrupt import StopRequest

# a server forks processes that have already imported torch; itself it has run nothing, so that forking it is safe
_CONTEXT = multiprocessing.get_context("forkserver")
POLL_S = 0.5
"""longest wait for the end of a job"""
_SILENT_S = 900.0
BY_ANOTHER = "by another command"


@dataclass(kw_only=True)
class Outcome:
    """Result of `run_jobs`: name -> reason of the runs that failed, and the signal that stopped all runs, or None."""

    failed: dict[str, str] = field(default_factory=dict)
    stopped_by: int | None = None


class Pool(Protocol):
    """Where jobs run.

    Attributes:
        active: name of each place that works -> its run.
        num_places: how many jobs there may be at a time.
        recheck_s: seconds until a run that another command has is tried again.
    """

    active: dict[str, Run]
    num_places: int
    recheck_s: float

    def start(self, run: Run) -> str:
        """Begins a run in a place that is free; returns what that is called, "" where no name is needed."""
        ...

    def wait(self) -> list[tuple[Run, str, int | None]]:
        """Waits for `POLL_S` at most; returns the runs that have ended, their places, and the exit status."""
        ...

    def stop(self) -> None:
        """Asks every job to save its current step and end."""
        ...

    def kill(self) -> None:
        """Ends every job."""
        ...


def job_options(directory: Path, device: Device, threads: int | None) -> JobOptions:
    """Returns the options of jobs whose runs are in directory/runs, which is created."""
    folder = directory / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return JobOptions(folder=folder, device=device, threads=threads, commit=source_commit())


def run_jobs(runs: list[Run], updates: dict[str, int], options: JobOptions, pool: Pool) -> Outcome:
    """Trains and evaluates the runs that are not finished, and shows how far they are.

    Args:
        runs: all runs, without repetition.
        updates: name of a run -> updates it makes in all, for the estimate of the time left.
        options: of the jobs.
        pool: where they run, made with the same options.
    """
    todo = [run for run in runs if not options.is_finished(run)]
    with StopRequest() as stop, Board(options.folder, runs, todo, updates) as board:
        try:
            return _Experiment(options, pool, board, todo).drive(stop)
        finally:
            # a second Ctrl-C, or an error of this program: no process stays behind
            pool.kill()


class _Experiment:
    """The runs of an experiment while it goes on."""

    def __init__(self, options: JobOptions, pool: Pool, board: Board, todo: list[Run]) -> None:
        self.options, self.pool, self.board = options, pool, board
        self.waiting = deque(todo)
        # runs that other commands have: name -> run and when it is tried again
        self.elsewhere: dict[str, tuple[Run, float]] = {}
        self._told: set[str] = set()
        self.outcome = Outcome()

    def drive(self, stop: StopRequest) -> Outcome:
        """Starts and awaits jobs until there are none, or until a signal."""
        pool, has_asked = self.pool, False
        while pool.active or ((self.waiting or self.elsewhere) and stop.signal is None):
            if stop.signal is None:
                self._start()
            elif not has_asked:
                has_asked = True
                pool.stop()
            for run, where, status in pool.wait():
                # a terminal's Ctrl-C reaches the runs as well, and they may be faster
                self._end(run, where, status, is_stopping=stop.signal is not None)
            if stop.signal is None:
                self.board.show(pool.active)
        # a signal may have come when all was done
        self.outcome.stopped_by = stop.signal if self.board.left else None
        return self.outcome

    def _start(self) -> None:
        if not self.waiting:
            due = [name for name, (_, when) in self.elsewhere.items() if when <= time.monotonic()]
            self.waiting.extend(self.elsewhere.pop(name)[0] for name in due)
        while self.waiting and len(self.pool.active) < self.pool.num_places:
            run = self.waiting.popleft()
            if self.options.is_finished(run):
                self.board.finish(run, BY_ANOTHER)
            else:
                self.board.start(run, self.pool.start(run))

    def _end(self, run: Run, where: str, status: int | None, *, is_stopping: bool) -> None:
        reason = reason_of(run, self.options, status)
        if reason is None:
            self.board.finish(run, where)
        elif status == IN_USE:
            self._leave(run)
        elif not is_stopping:
            self._fail(run, where, reason)

    def _leave(self, run: Run) -> None:
        """Leaves a run to the command that has it, unless that has written nothing for long."""
        folder, user = self.options.folder / run.name, owner_of(self.options.folder / run.name)
        if silence_s(run, self.options) > _SILENT_S:
            minutes = round(_SILENT_S / 60)
            text = f"in use by {user}, which has written nothing for {minutes} minutes; if it has ended, delete "
            self._fail(run, "", f"{text}{folder / 'lock.json'} and repeat the command")
            return
        if run.name not in self._told:
            self._told.add(run.name)
            self.board.say(f"in use by {user}, and left to it: {run.about}")
        self.elsewhere[run.name] = (run, time.monotonic() + self.pool.recheck_s)

    def _fail(self, run: Run, where: str, reason: str) -> None:
        self.outcome.failed[run.name] = reason
        self.board.fail(run, where, reason)


class ProcessPool:
    """Jobs in processes of this machine, which end when this process does.

    Args:
        options: of the jobs.
        gpus: for each job that there may be at a time, the GPU that it uses, or None for one on the CPU.
    """

    recheck_s = 3.0

    def __init__(self, options: JobOptions, gpus: Sequence[str | None]) -> None:
        self.options, self.num_places = options, len(gpus)
        _CONTEXT.set_forkserver_preload(["pps_fast.lab.jobs", "torch._dynamo"])
        self.active: dict[str, Run] = {}
        self._gpus = {f"job {number}": gpu for number, gpu in enumerate(gpus, start=1)}
        self._processes: dict[str, BaseProcess] = {}

    def start(self, run: Run) -> str:
        place = next(place for place in self._gpus if place not in self.active)
        arguments = (run, self.options, self._gpus[place])
        process = _CONTEXT.Process(target=_job, args=arguments, daemon=True)
        process.start()
        self.active[place], self._processes[place] = run, process
        return self._name_of(place)

    def wait(self) -> list[tuple[Run, str, int | None]]:
        connection.wait([process.sentinel for process in self._processes.values()], timeout=POLL_S)
        ended: list[tuple[Run, str, int | None]] = []
        for place, process in list(self._processes.items()):
            if not process.is_alive():
                del self._processes[place]
                ended.append((self.active.pop(place), self._name_of(place), process.exitcode))
        return ended

    def _name_of(self, place: str) -> str:
        gpu = self._gpus[place]
        return "" if gpu is None else f"on GPU {gpu}"

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()


def _job(run: Run, options: JobOptions, gpu: str | None) -> None:
    """Body of a process. What it prints goes to the run's log; it ends when its parent does."""
    # a terminal's Ctrl-C reaches every process; the parent passes it on, once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(work_on(run, options, gpu))


def _end_with_parent() -> None:
    """Waits until the parent process has ended, then stops this process as SIGTERM does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
