"""Small experiments for the tests of the lab: in this process, or as a command in another one that may be killed."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.lab.runs import RESULT_FILE, SAMPLES_FILE
from pps_fast.presets import PRESETS
from pps_fast.runs.metrics_log import METRICS_FILE
from tests.support.train_runs import weights

# 48 training samples, 6 updates an epoch; a checkpoint after every second update
CHANGES = {
    "data.planted.num_videos": 10,
    "train.max_steps": 5,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "inference.num_bootstrap": 20,
}
CONFIG: PPSConfig = override(PRESETS["tiny"], CHANGES)
OPTIONS = ["--preset=tiny", "--device=cpu", *(f"--{name.replace('_', '-')}={value}" for name, value in CHANGES.items())]

# what the commands of this and of the training tests import; each command starts a server of its own for its runs
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pps_fast.ablate", "pps_fast.train.__main__", "torch._dynamo"])


def start_ablate(argv: list[str], output: Path) -> BaseProcess:
    """Starts `python -m pps_fast.ablate` with these arguments; what it prints goes to `output`."""
    process = _CONTEXT.Process(target=_command, args=([*OPTIONS, *argv], str(output)))
    process.start()
    return process


def _command(argv: list[str], output: str) -> None:
    from pps_fast.ablate import main

    with open(output, "a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        status = main(argv)
    sys.exit(status)


def wait_for(process: BaseProcess, happens: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Returns once something has happened; raises when the command ends before that."""
    end = time.monotonic() + timeout_s
    while not happens():
        if not process.is_alive() or time.monotonic() > end:
            raise RuntimeError(f"it never happened (exit code {process.exitcode})")
        time.sleep(0.02)


def wait_for_step(process: BaseProcess, out: Path, step: int) -> None:
    """Returns once some run that is not finished has logged `step`."""
    wait_for(process, lambda: any(_has_logged(run, step) for run in (out / "runs").glob("*/")))


def _has_logged(run: Path, step: int) -> bool:
    path = run / METRICS_FILE
    return not (run / RESULT_FILE).exists() and path.exists() and f'{{"step": {step},' in path.read_text()


def contents(out: Path) -> dict[str, dict[str, bytes]]:
    """Returns what the runs have learned and answered: name of the run -> name of a file or array -> bytes."""
    files = {}
    for run in sorted((out / "runs").glob("*/")):
        with np.load(run / SAMPLES_FILE, allow_pickle=False) as file:
            arrays = {name: file[name].tobytes() for name in file.files}
        files[run.name] = {**weights(run), **arrays}
    return files
