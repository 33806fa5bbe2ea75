"""Runs training jobs in parallel processes; a failed job does not affect the others; a stopped job resumes."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from pps_fast.cli import exit_status
from pps_fast.devices import Device
from pps_fast.lab.runs import Run, is_finished, run_one
from pps_fast.runs.environment import source_commit
from pps_fast.runs.json_lines import read_lines
from pps_fast.runs.lock import LOCKS_NOT_SUPPORTED
from pps_fast.runs.metrics_log import METRICS_FILE
from pps_fast.train.interrupt import StopRequest
from pps_fast.train.progress import duration

# a server forks processes that have already imported torch; itself it has run nothing, so that forking it is safe
_CONTEXT = multiprocessing.get_context("forkserver")
_POLL_S = 0.5
# without tqdm's own estimate, which takes no account of runs that are waiting
_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} updates"


@dataclass(kw_only=True)
class Outcome:
    """Result of `run_jobs`: name -> reason of the runs that failed, and the signal that stopped all runs, or None."""

    failed: dict[str, str] = field(default_factory=dict)
    stopped_by: int | None = None


def run_jobs(
    runs: list[Run], updates: dict[str, int], directory: Path, *, jobs: int, device: Device, threads: int | None
) -> Outcome:
    """Trains and evaluates the runs that are not finished, `jobs` at a time, and shows how far they are.

    Args:
        runs: all runs, without repetition.
        updates: name of a run -> updates it makes in all, for the estimate of the time left.
        directory: its runs/NAME are the run directories, runs/NAME.log what a run has printed.
    """
    folder = directory / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [run for run in runs if not is_finished(folder / run.name)]
    _CONTEXT.set_forkserver_preload(["pps_fast.lab.runs", "torch._dynamo"])
    with StopRequest() as stop, _Board(folder, runs, todo, updates) as board:
        pool = _Pool(folder, device, threads)
        try:
            return _drive(pool, todo, jobs, stop, board)
        finally:
            # a second Ctrl-C, or an error of this program: no process stays behind
            pool.kill()


def _drive(pool: _Pool, todo: list[Run], jobs: int, stop: StopRequest, board: _Board) -> Outcome:
    outcome, waiting, asked = Outcome(), list(reversed(todo)), False
    while pool.active or (waiting and stop.signal is None):
        while waiting and stop.signal is None and len(pool.active) < jobs:
            pool.start(waiting.pop())
        if stop.signal is not None and not asked:
            asked = True
            pool.stop()
        for run, reason in pool.wait():
            if reason is None:
                board.finish(run)
            # a terminal's Ctrl-C reaches the runs as well, and they may be faster
            elif stop.signal is None:
                outcome.failed[run.name] = reason
                board.fail(run, reason)
        if stop.signal is None:
            board.show(list(pool.active.values()))
    # a signal may have come when all was done
    outcome.stopped_by = stop.signal if board.left else None
    return outcome


class _Pool:
    """The processes of the runs that are being trained."""

    def __init__(self, folder: Path, device: Device, threads: int | None) -> None:
        self.folder, self.device, self.threads = folder, device, threads
        # read before the first run: files may change while processes use what they have loaded
        self.commit = source_commit()
        self.active: dict[BaseProcess, Run] = {}

    def start(self, run: Run) -> None:
        arguments = (run, self.folder, self.device, self.threads, self.commit)
        process = _CONTEXT.Process(target=_job, args=arguments, daemon=True)
        process.start()
        self.active[process] = run

    def wait(self) -> list[tuple[Run, str | None]]:
        """Waits for half a second at most; returns the runs that have ended and why they failed (None: finished)."""
        connection.wait([process.sentinel for process in self.active], timeout=_POLL_S)
        ended = []
        for process, run in list(self.active.items()):
            if not process.is_alive():
                del self.active[process]
                ended.append((run, self._reason(process, run)))
        return ended

    def _reason(self, process: BaseProcess, run: Run) -> str | None:
        if process.exitcode == 0 and is_finished(self.folder / run.name):
            return None
        log = _log_of(self.folder, run)
        if (process.exitcode or 0) < 0:
            return f"ended by {signal.Signals(-(process.exitcode or 0)).name} (see {log})"
        # a process that ended early may not have opened its log
        text = log.read_text(encoding="utf-8") if log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        said = lines[-1] if lines else f"exit status {process.exitcode}"
        return f"{said.removeprefix('error: ')} (see {log})"

    def stop(self) -> None:
        """Asks every process to save its current step and end."""
        for process in self.active:
            process.terminate()

    def kill(self) -> None:
        for process in self.active:
            process.kill()
            process.join()


def _log_of(folder: Path, run: Run) -> Path:
    return folder / f"{run.name}.log"


def _job(run: Run, folder: Path, device: Device, threads: int | None, commit: str) -> None:
    """Body of a process. What it prints goes to the run's log; it ends when its parent does."""
    # a terminal's Ctrl-C reaches every process; the parent passes it on, once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(_log_of(folder, run), "a", encoding="utf-8") as log:
        _take_turns(log.fileno())
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        sys.exit(exit_status(lambda: _run_unfinished(run, folder, device, threads, commit)))


def _take_turns(descriptor: int) -> None:
    """Waits for other commands that share the directory; the lock is held as long as the process lives."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        # where the file system has no such lock, a run that another command trains is refused (see `runs.lock`)
        if error.errno not in LOCKS_NOT_SUPPORTED:
            raise


def _run_unfinished(run: Run, folder: Path, device: Device, threads: int | None, commit: str) -> int:
    if is_finished(folder / run.name):
        return 0
    stopped_by = run_one(run.config, folder / run.name, device, threads, commit)
    return 0 if stopped_by is None else 128 + stopped_by


def _end_with_parent() -> None:
    """Waits until the parent process has ended, then stops this process as SIGTERM does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


class _Board:
    """Progress: a line for every run that ends, and on a terminal one bar over the updates of all runs."""

    def __init__(self, folder: Path, runs: list[Run], todo: list[Run], updates: dict[str, int]) -> None:
        self.folder, self.num_runs = folder, len(runs)
        self.before = {run.name: self._step(run) for run in todo}
        # name -> updates to be made now
        self.left = {run.name: updates[run.name] - self.before[run.name] for run in todo}
        self.gained, self.begin = 0, time.monotonic()
        self.bar = tqdm(total=sum(self.left.values()), disable=None, leave=False, bar_format=_BAR)
        self._say(f"{self.num_runs} runs, {self.num_runs - len(todo)} of them finished before")

    def __enter__(self) -> _Board:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def finish(self, run: Run) -> None:
        self._end(run, f"finished: {run.about}")

    def fail(self, run: Run, reason: str) -> None:
        self._end(run, f"FAILED: {run.about}: {reason}")

    def _end(self, run: Run, text: str) -> None:
        self.gained += self.left.pop(run.name)
        self._say(f"[{self._count()}] {text}{self._time_left(0)}")

    def show(self, active: list[Run]) -> None:
        """Brings the bar up to date."""
        if not self.bar.disable:
            under_way = sum(self._step(run) - self.before[run.name] for run in active)
            self.bar.n = self.gained + under_way
            self.bar.set_description(f"runs {self._count()}{self._time_left(under_way)}")

    def _count(self) -> str:
        return f"{self.num_runs - len(self.left)}/{self.num_runs}"

    def _time_left(self, under_way: int) -> str:
        """Returns the estimated remaining time in words, given the updates of the runs that are still going."""
        gained = self.gained + under_way
        if not self.left or gained <= 0:
            return ""
        seconds = (time.monotonic() - self.begin) / gained * (sum(self.left.values()) - under_way)
        return f", about {duration(seconds)} left"

    def _step(self, run: Run) -> int:
        """Returns the updates a run has logged."""
        path = self.folder / run.name / METRICS_FILE
        lines = read_lines(path) if path.exists() else []
        return lines[-1]["step"] if lines else 0

    def _say(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
