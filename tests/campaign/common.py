"""What campaigns share: runs in child processes that have imported everything, a reference, and the count."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from pps_fast.runs.metrics_log import read_metrics
from tests.support.train_runs import _CONTEXT, SMALL, weights

OPTIONS = [
    "--threads=1",
    "--preset=tiny",
    "--train.epochs=2",
    "--inference.num-bootstrap=20",
    *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()),
]
PATIENCE_S = 120
# names of others in a run directory, which must outlive everything
FOREIGN = ("notes.txt", "checkpoints/my_backup/model.safetensors")


@dataclass
class Tally:
    """How a campaign went: how many were tried, and for each loss what happened and how to repeat it."""

    tried: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """Returns the figures in one line and a line for each loss."""
        survived = self.tried - len(self.lost)
        head = f"{name}: tried {self.tried}, survived {survived}, lost {len(self.lost)}, refused {self.refused}"
        return "\n".join([head, *self.lost])


def start(argv: list[str], output: Path, die_at: int | None = None) -> BaseProcess:
    """Starts a small training; what it prints goes to `output`.

    Args:
        die_at: the call of the file system, counted from 1, in the middle of which the process kills itself.
    """
    process = _CONTEXT.Process(target=_train, args=([*OPTIONS, *argv], str(output), die_at), daemon=True)
    process.start()
    return process


def _train(argv: list[str], output: str, die_at: int | None) -> None:
    from pps_fast.train.__main__ import main

    torch.set_num_interop_threads(1)
    if die_at is not None:
        _die_within_call(die_at)
    with open(output, "a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        status = main(argv)
    sys.exit(status)


def _die_within_call(number: int) -> None:
    """Makes this process kill itself within a call that changes files, half of a file's bytes written."""
    left = [number]

    def is_last() -> bool:
        left[0] -= 1
        return left[0] == 0

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if is_last():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return run

    write = Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        if is_last():
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    Path.write_bytes = write_half  # type: ignore[method-assign]
    for name in ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "pwrite", "ftruncate"):
        setattr(os, name, deadly(getattr(os, name)))


def reference(folder: Path) -> Path:
    """Trains without any trouble and returns the run directory.

    Raises:
        RuntimeError: where even that does not work.
    """
    process = start(["--out", str(folder / "reference")], folder / "reference.txt")
    process.join(PATIENCE_S)
    if process.exitcode != 0:
        raise RuntimeError((folder / "reference.txt").read_text(encoding="utf-8"))
    return folder / "reference"


def add_foreign(run: Path) -> None:
    """Puts files of somebody else into a run directory."""
    for name in FOREIGN:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine", encoding="utf-8")


def faults_of(run: Path, expected: Path, output: Path) -> list[str]:
    """Returns what is wrong with a finished run: other weights or steps, lost foreign files, left-overs, tracebacks."""
    faults = []
    if weights(run) != weights(expected):
        faults.append("other weights")
    steps = [[line["step"] for line in read_metrics(path)] for path in (run, expected)]
    if steps[0] != steps[1]:
        faults.append(f"metrics of the steps {steps[0]}")
    faults += [f"{name} is gone" for name in FOREIGN if not (run / name).is_file()]
    faults += [f"{path.name} is left" for path in run.rglob("*") if path.name.startswith((".tmp-", "lock.json"))]
    if "Traceback" in output.read_text(encoding="utf-8"):
        faults.append("a traceback")
    return faults


def campaign(attempt: Callable[[random.Random, Path, Path, Tally], list[str]], seconds: float, seed: int) -> Tally:
    """Repeats an attempt with seeds seed, seed + 1, ... until the time is over, once at least.

    Args:
        attempt: is given random numbers, an empty folder, the reference run and the tally; returns what was lost.
    """
    tally, end = Tally(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        expected = reference(Path(name))
        while tally.tried == 0 or time.monotonic() < end:
            folder = Path(name) / str(tally.tried)
            folder.mkdir()
            faults = attempt(random.Random(seed + tally.tried), folder, expected, tally)
            if faults:
                again = f"--minutes 0 --seed {seed + tally.tried}"
                tally.lost.append(f"  {'; '.join(faults)} (repeat with {again})")
            tally.tried += 1
    return tally
