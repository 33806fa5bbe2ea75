"""What campaigns share: runs in child processes that have imported everything, a reference, and the count."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

import torch

from pps_fast.runs.metrics_log import METRICS_FILE, read_metrics
from tests.support.train_runs import _CONTEXT, SMALL, weights

TRAIN, FIT = "pps_fast.train.__main__", "pps_fast.align"
OPTIONS = [
    "--threads=1",
    "--preset=tiny",
    "--train.epochs=2",
    "--inference.num-bootstrap=20",
    *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()),
]
# of an alignment, which is fitted and not trained
FIT_OPTIONS = [option for option in OPTIONS if not option.startswith(("--preset", "--train"))]
# on a machine that is busy with other work, too
PATIENCE_S = 600
# names of others in a run directory, which must outlive everything
FOREIGN = ("notes.txt", "checkpoints/my_backup/model.safetensors")


@dataclass
class Tally:
    """How a campaign went: how many were tried, and for each loss what happened and how to repeat it."""

    tried: int = 0
    refused: int = 0
    unchanged: int = 0
    accepted: int = 0
    kills: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def count(self, kind: str) -> None:
        """Counts what was tried by its kind."""
        self.kinds[kind] += 1

    def text(self, name: str) -> str:
        """Returns the figures in one line, the kinds of what was tried, and a line for each loss."""
        survived = self.tried - len(self.lost)
        head = f"{name}: tried {self.tried}, survived {survived}, lost {len(self.lost)}, refused {self.refused}"
        more = {"kills": self.kills, "without effect": self.unchanged, "accepted as other input": self.accepted}
        head += "".join(f", {label} {number}" for label, number in more.items() if number)
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.kinds.items()))
        return "\n".join([head, *([f"  {kinds}"] if kinds else []), *self.lost])


def start(argv: list[str], output: Path, die_at: int | None = None, program: str = TRAIN) -> BaseProcess:
    """Starts a small training, or fit of an alignment; what it prints goes to `output`.

    Args:
        die_at: the call of the file system, counted from 1, in the middle of which the process kills itself.
    """
    words = [*(OPTIONS if program == TRAIN else FIT_OPTIONS), *argv]
    process = _CONTEXT.Process(target=_run, args=(program, words, str(output), die_at), daemon=True)
    process.start()
    return process


def _run(program: str, argv: list[str], output: str, die_at: int | None) -> None:
    module: Any = import_module(program)
    if program == TRAIN:
        # the look at a step writes nothing and takes three quarters of so small a run, so that most kills would hit it
        module._choices_of_step = lambda *_: []
    torch.set_num_interop_threads(1)
    if die_at is not None:
        _die_within_call(die_at)
    with open(output, "a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        status = module.main(argv)
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
    """Trains and fits without any trouble, in reference and reference_fit, and returns the first run directory.

    Raises:
        RuntimeError: where even that does not work.
    """
    for name, program in {"reference": TRAIN, "reference_fit": FIT}.items():
        process = start(["--out", str(folder / name)], folder / "reference.txt", program=program)
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
    # a fit has none
    logs = [path for path in (run, expected) if (expected / METRICS_FILE).is_file()]
    steps = [[line["step"] for line in read_metrics(path)] for path in logs]
    if steps and steps[0] != steps[1]:
        faults.append(f"metrics of the steps {steps[0]}")
    faults += [f"{name} is gone" for name in FOREIGN if not (run / name).is_file()]
    faults += [f"{path.name} is left" for path in run.rglob("*") if path.name.startswith((".tmp-", "lock.json"))]
    if "Traceback" in output.read_text(encoding="utf-8"):
        faults.append("a traceback")
    return faults


def campaign(
    attempt: Callable[[random.Random, Path, Any, Tally], list[str]],
    seconds: float,
    seed: int,
    prepare: Callable[[Path], Any] = reference,
    keep: Path | None = None,
) -> Tally:
    """Repeats an attempt with seeds seed, seed + 1, ... until the time is over, once at least.

    Args:
        attempt: is given random numbers, an empty folder, what `prepare` has returned, and the tally; returns what was
            lost.
        prepare: makes, in a folder, what all attempts share.
        keep: where the folders of lost attempts are copied to.
    """
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        shared = prepare(Path(name))
        end = time.monotonic() + seconds
        while tally.tried == 0 or time.monotonic() < end:
            number = seed + tally.tried
            folder = Path(name) / str(number)
            folder.mkdir()
            faults = attempt(random.Random(number), folder, shared, tally)
            if faults:
                again = f"--minutes 0 --seed {number}"
                if keep is not None:
                    shutil.copytree(folder, keep / str(number), symlinks=True, dirs_exist_ok=True, ignore=_endless)
                    again += f"; its files: {keep / str(number)}"
                tally.lost.append(f"  {'; '.join(faults)} (repeat with {again})")
                print(tally.lost[-1], flush=True)
            shutil.rmtree(folder)
            tally.tried += 1
    return tally


def _endless(folder: str, names: list[str]) -> list[str]:
    """Returns the names that are pipes and devices, of which a copy would not end."""
    modes = {name: Path(folder, name).lstat().st_mode for name in names}
    return [name for name, mode in modes.items() if not (S_ISREG(mode) or S_ISDIR(mode) or S_ISLNK(mode))]
