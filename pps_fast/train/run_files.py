"""What a training leaves on disk while it runs: log, trace and checkpoints, written by the first process alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pps_fast.config import PPSConfig
from pps_fast.data.store import Store
from pps_fast.model import PPS
from pps_fast.runs.checkpoint import Header, describe_data, save_checkpoint
from pps_fast.runs.environment import environment
from pps_fast.runs.lock import RunLock
from pps_fast.runs.metrics_log import MetricsLog
from pps_fast.runs.model_folder import ModelInputs
from pps_fast.runs.pointers import point, prune, read_pointer
from pps_fast.runs.run_directory import rewrite_deleted
from pps_fast.runs.trace import Trace
from pps_fast.train.state import training_state
from pps_fast.train.step import TrainStep


class RunFiles:
    """The files of a run directory; in a process that has no lock of it, all that writes does nothing.

    Args:
        run: the run directory.
        config: of the training.
        store: its data.
        lock: of the run directory; None in all processes of a training but the first.
        num_processes: of the training.

    Attributes:
        latest: checkpoint to continue from; None before the first.
    """

    def __init__(
        self, run: Path, config: PPSConfig, store: Store, lock: RunLock | None, num_processes: int = 1
    ) -> None:
        self.num_processes = num_processes
        self.run, self.config, self.store, self.lock = run, config, store, lock
        self.data = describe_data(store.data)
        self.latest: Path | None = None
        self._log: MetricsLog | None = None
        self._trace: Trace | None = None

    @contextmanager
    def open(self, samples: np.ndarray, step: int) -> Iterator[None]:
        """Keeps log and trace open during the `with` block.

        Args:
            samples: of the training split.
            step: updates done before; later lines are removed.
        """
        if self.lock is None:
            yield
            return
        with (
            MetricsLog(self.run, step=step, tensorboard=self.config.train.tensorboard) as self._log,
            Trace(self.run, self.config, self.store, samples, step=step) as self._trace,
        ):
            yield
        self._log = self._trace = None

    def log(self, line: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        if self._log is not None:
            self._log.write(line)

    def is_trace_due(self, step: int, *, is_last: bool) -> bool:
        """Whether a line of the trace is written now."""
        return self._trace is not None and self._trace.is_due(step, is_last)

    def trace(self, model: PPS, step: int) -> None:
        """Appends a line to trace.jsonl; see `is_trace_due`."""
        if self._trace is not None:
            self._trace.write(model, step)

    def rewrite_deleted(self) -> bool:
        """Writes again what was deleted during the training; returns whether the checkpoint is to be written, too."""
        if self.lock is None:
            return False
        logs = [file for file in (self._log, self._trace) if file is not None]
        return rewrite_deleted(self.run, self.config, self.lock, logs)

    def save(self, train_step: TrainStep, inputs: ModelInputs, header: Header, score: float | None) -> None:
        """Writes a checkpoint, then the pointers to it, then removes what is no longer pointed to."""
        if self.lock is None:
            return
        run, model = self.run, train_step.model
        checkpoint = save_checkpoint(run, model, training_state(model, train_step.optimizers), header, inputs)
        best = read_pointer(run, "best")
        # before latest.json: a kill in between must not lose the score, and a repeated score is not better
        if self.config.train.keep == "validation" and score is not None and (best is None or score > best["mIoU"]):
            point(run, "best", checkpoint, step=header.step, mIoU=score)
        point(run, "latest", checkpoint, step=header.step)
        self.latest = checkpoint
        prune(run)

    def header(self, step: int, steps_per_epoch: int, began: float) -> Header:
        """Returns the header of a checkpoint.

        Args:
            step: updates done.
            steps_per_epoch: updates of one pass over the data.
            began: when the training began, by `time.perf_counter`.
        """
        epoch, batch = divmod(step, steps_per_epoch)
        return Header(
            step=step,
            epoch=epoch,
            batch=batch,
            elapsed_s=time.perf_counter() - began,
            device=self.store.device.type,
            config=self.config,
            sizes=self.store.sizes,
            data=self.data,
            environment=environment(self.num_processes),
        )
