"""What a training writes, and that only the process with the lock of the run writes it."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from pps_fast.config import PPSConfig
from pps_fast.model import PPS
from pps_fast.runs.checkpoint import read_header
from pps_fast.runs.lock import owning
from pps_fast.runs.metrics_log import read_metrics
from pps_fast.runs.model_folder import inputs_of
from pps_fast.runs.pointers import read_pointer
from pps_fast.runs.run_directory import open_run
from pps_fast.runs.trace import read_trace
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.run_files import RunFiles
from tests.support.train_runs import small_config, small_input

LINE = {"step": 1, "epoch": 1, "validation": {"mIoU": 1.0}}


def _write(files: RunFiles, config: PPSConfig, scores: list[float | None]) -> None:
    """Does what a training does: a line of each log, and a checkpoint after each step with a score."""
    store, splits = small_input(config)
    torch.manual_seed(0)
    train_step = TRAIN_STEPS["joint"](PPS(config, store.sizes), config)
    with files.open(splits.train, 0):
        assert files.is_trace_due(1, is_last=True) == (files.lock is not None)
        files.trace(train_step.model, 1)
        files.log(LINE)
        for step, score in enumerate(scores, start=1):
            header = files.header(step, 6, time.perf_counter() - 2)
            files.save(train_step, inputs_of(store.data, splits.train), header, score)
    files.rewrite_deleted()


def test_a_process_without_the_lock_writes_nothing(tmp_path: Path) -> None:
    config = small_config(train__trace_every=1, train__keep="validation")
    files = RunFiles(tmp_path / "run", config, small_input(config)[0], None)
    _write(files, config, [0.5])
    assert not (tmp_path / "run").exists() and files.latest is None


def test_the_owner_writes_logs_checkpoints_and_which_is_the_best(tmp_path: Path) -> None:
    config, run = small_config(train__trace_every=1, train__keep="validation"), tmp_path / "run"
    with owning(run) as lock:
        files = RunFiles(run, config, small_input(config)[0], lock, 3)
        open_run(run, config, files.data, "cpu", False)
        _write(files, config, [0.2, 0.4, 0.4, None])
    assert read_metrics(run) == [LINE] and [line["step"] for line in read_trace(run)] == [1]
    assert (read_pointer(run, "best")["step"], read_pointer(run, "latest")["step"]) == (2, 4)
    # what no pointer names is gone
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_000002", "step_000004"]
    header = read_header(files.latest)
    assert header.environment["processes"] == 3
    assert (header.step, header.epoch, header.batch) == (4, 0, 4) and 2 <= header.elapsed_s < 60
