"""What a process of an experiment does with one run, and why it may not have finished it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from pps_fast.cli import exit_status
from pps_fast.devices import Device, use_only_gpu
from pps_fast.lab.runs import Run, is_finished, run_one
from pps_fast.runs.lock import InUse

IN_USE = 75
"""exit status of a process whose run another command has (EX_TEMPFAIL of sysexits.h)"""


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What is the same for all runs of an experiment.

    Attributes:
        folder: folder/NAME are the run directories, folder/NAME.log what a run has printed.
        commit: of the code, read before the first run: files may change while processes use what they have loaded.
    """

    folder: Path
    device: Device
    threads: int | None
    commit: str

    def log_of(self, run: Run) -> Path:
        """Returns the log of a run."""
        return self.folder / f"{run.name}.log"

    def is_finished(self, run: Run) -> bool:
        """Whether a run needs no work any more."""
        return is_finished(self.folder / run.name)


def work_on(run: Run, options: JobOptions, gpu: str | None) -> int:
    """Trains and evaluates a run in this process, whose output goes to the run's log from now on.

    Args:
        gpu: the only one that the process shall use; None leaves the choice to the options.
    Returns:
        0 when the run is finished, `IN_USE` where another process has it, 128 + a signal that stopped it, or the status
        of an error that its log tells.
    """
    if gpu is not None:
        use_only_gpu(gpu)
    with open(options.log_of(run), "a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        return exit_status(lambda: _finish(run, options))


def _finish(run: Run, options: JobOptions) -> int:
    if options.is_finished(run):
        return 0
    try:
        stopped_by = run_one(run.config, options.folder / run.name, options.device, options.threads, options.commit)
    except InUse:
        return IN_USE
    return 0 if stopped_by is None else 128 + stopped_by


def reason_of(run: Run, options: JobOptions, status: int | None) -> str | None:
    """Returns in words why a run is not finished, None where it is.

    Args:
        status: of its process, negative for the signal that ended it, None where nobody knows.
    """
    if status == 0 and options.is_finished(run):
        return None
    log = options.log_of(run)
    if status is not None and status < 0:
        return f"ended by {signal.Signals(-status).name} (see {log})"
    if status is not None and status > 128 and status - 128 in list(signal.Signals):
        name = signal.Signals(status - 128).name
        return f"stopped by {name}; its last step is saved, and a repeated command continues it (see {log})"
    # a process that ended early may not have opened its log
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("submitit ")]
    said = lines[-1] if lines else "ended without a word" if status is None else f"exit status {status}"
    return f"{said.removeprefix('error: ')} (see {log})"


def silence_s(run: Run, options: JobOptions) -> float:
    """Returns for how many seconds nothing was written in a run's directory; 0 where there is none."""
    try:
        times = [entry.stat().st_mtime for entry in (options.folder / run.name).iterdir()]
    except OSError:
        # finished files are replaced while we look
        return 0.0
    return max(0.0, time.time() - max(times, default=time.time()))
