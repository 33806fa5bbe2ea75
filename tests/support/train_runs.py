"""Small runs for the tests of training: in this process, or in another one that may be killed."""

from __future__ import annotations

import multiprocessing
import sys
import time
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.splits import Splits, select_samples
from pps_fast.data.store import Store
from pps_fast.presets import PRESETS
from pps_fast.runs.metrics_log import MetricsLog
from pps_fast.train.loop import TrainResult, train

# 48 training samples: 6 updates an epoch
SMALL = {"data.planted.num_videos": 10, "train.log_every": 1, "train.checkpoint_every": 2}
STEPS_PER_EPOCH = 6


def small_config(**changes: Any) -> PPSConfig:
    """Returns the smallest config, with dotted fields written as `train__epochs`."""
    return override(PRESETS["tiny"], {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}})


@lru_cache
def _data(planted: Any) -> Any:
    return load_data(override(small_config().data, {"planted": planted}))


def small_input(config: PPSConfig) -> tuple[Store, Splits]:
    """Returns the data of a small config."""
    data = _data(config.data.planted)
    return Store(data), select_samples(data, config.data)


def run_small(config: PPSConfig, directory: Path, **options: Any) -> TrainResult:
    """Trains a small config in this process, without a progress bar."""
    store, splits = small_input(config)
    return train(config, store, splits, directory, progress=False, **options)


def weights(run: Path) -> dict[str, bytes]:
    """Returns the bytes of the safetensors files of a run's latest checkpoint."""
    from pps_fast.runs.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(run, "latest")
    return {path.name: path.read_bytes() for path in sorted(checkpoint.glob("*.safetensors"))}


# a server forks children that have already imported torch; itself it has run nothing, so that forking it is safe
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pps_fast.train.__main__", "torch._dynamo"])


def start_command(argv: list[str], output: Path, hold_at: int | None = None) -> BaseProcess:
    """Starts `python -m pps_fast.train` with these arguments on one thread; what it prints goes to `output`.

    Once it has logged the step `hold_at` it waits for `release(output)`: a busy test cannot come too late for it.
    """
    arguments = (["--threads", "1", *argv], str(output), hold_at)
    process = _CONTEXT.Process(target=_command, args=arguments, daemon=True)
    process.start()
    return process


def release(output: Path) -> None:
    """Lets a command that is held go on."""
    _released(output).touch()


def _released(output: Path) -> Path:
    return output.with_suffix(".released")


def _hold(step: int, released: Path) -> None:
    """Makes this process wait after it has logged a step; signals are handled meanwhile."""
    write = MetricsLog.write

    def write_and_wait(log: MetricsLog, values: dict[str, Any]) -> None:
        write(log, values)
        while values["step"] == step and not released.exists():
            time.sleep(0.005)

    MetricsLog.write = write_and_wait


def _command(argv: list[str], output: str, hold_at: int | None) -> None:
    from pps_fast.train.__main__ import main

    if hold_at is not None:
        _hold(hold_at, _released(Path(output)))
    torch.set_num_interop_threads(1)
    with open(output, "a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        status = main(argv)
    sys.exit(status)


def wait_for_step(process: BaseProcess, run: Path, step: int, timeout_s: float = 300.0) -> None:
    """Returns once the run has logged `step`; raises when the process ends before that."""
    path, end = run / "metrics.jsonl", time.monotonic() + timeout_s
    mark = f'{{"step": {step},'
    while not (path.exists() and mark in path.read_text(encoding="utf-8")):
        if not process.is_alive() or time.monotonic() > end:
            raise RuntimeError(f"step {step} was never logged (exit code {process.exitcode})")
        time.sleep(0.001)
