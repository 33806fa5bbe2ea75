"""Training steps that are captured once per shape as a CUDA graph and replayed (see `recordings`).

The eager step is captured as it is: gathering the batch, forward, losses, backward, clipping and update. Inputs that
change from step to step are written into fixed memory: indices of the samples, the store's noise of the pass, the
learning rate.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pps_fast.config import TrainConfig
from pps_fast.data.store import Store
from pps_fast.distributed import Share
from pps_fast.files import Note
from pps_fast.recordings import Record, Recording, Recordings, record_cuda_graph
from pps_fast.train.step import StepReport, TrainStep


class EagerStep:
    """Gathers the batch of some samples and trains on it."""

    def __init__(self, train_step: TrainStep, store: Store) -> None:
        self.train_step, self.store = train_step, store

    def __call__(self, samples: np.ndarray) -> StepReport:
        """Trains on [B] samples of the pass that the store began; one of several processes on its share of them."""
        self.store.stage(self._rows(samples))
        return self._run(samples)

    def _run(self, samples: np.ndarray) -> StepReport:
        """Trains on samples of which this process's are staged."""
        index = torch.from_numpy(self._rows(samples)).to(self.store.device)
        return self.train_step(self.store.gather(index, *self._shape(samples)), self._share(len(samples)))

    def read_ahead(self, batches: Sequence[np.ndarray]) -> None:
        """Announces the next batches to the store, of which only this process's samples are needed."""
        self.store.read_ahead([self._rows(samples) for samples in batches])

    def _share(self, count: int) -> Share | None:
        """Returns which of `count` samples are this process's; None for all."""
        world = self.train_step.world
        return None if world.size == 1 else world.share(count)

    def _rows(self, samples: np.ndarray) -> np.ndarray:
        share = self._share(len(samples))
        return samples if share is None else share.rows(samples)

    def _shape(self, samples: np.ndarray) -> tuple[int, int]:
        """Returns word columns of a batch, and words of a share of it; the same in all processes, as shapes must be."""
        shares = self.train_step.world.shares(len(samples))
        most = max(self.store.total_words(share.rows(samples)) for share in shares)
        return int(self.store.num_columns(samples).max()), most


class CapturedStep(EagerStep):
    """An `EagerStep` that is recorded once for each shape: numbers of word columns and of words.

    Batches of another size than `batch_size` run eagerly. Where a step cannot be captured, a warning says why and all
    steps run eagerly from then on.

    Args:
        train_step: over parameters on the store's device.
        store: where batches come from.
        batch_size: size of the batches that are recorded; the last one of an epoch may be smaller and runs eagerly.
        record: makes a recording of a program.
    """

    def __init__(
        self, train_step: TrainStep, store: Store, batch_size: int, record: Record = record_cuda_graph
    ) -> None:
        super().__init__(train_step, store)
        self.batch_size = batch_size
        self._recordings: Recordings[StepReport] = Recordings(self._memory, record)
        self._part = self._share(batch_size)
        num_rows = batch_size if self._part is None else max(self._part.count, 1)
        self._index = torch.zeros(num_rows, dtype=torch.int64, device=store.device)
        self._is_capturable = True
        # listed once, as they are looked at before every step
        parts = [part for part in (train_step.model, *train_step.objectives) if isinstance(part, nn.Module)]
        modules = [module for part in parts for module in part.modules()]
        self._buffered = [module for module in modules if any(True for _ in module.buffers(recurse=False))]
        self._parameters = [parameter for part in parts for parameter in part.parameters()]

    def __call__(self, samples: np.ndarray) -> StepReport:
        """Trains on [B] samples of the pass that the store began; the report is the caller's to keep."""
        shape = self._shape(samples)
        if len(samples) != self.batch_size:
            return super().__call__(samples)
        rows = self._rows(samples)
        self.store.stage(rows)
        # before a recording, too: its warm-up runs on these samples, and others may have more columns
        self._index.copy_(torch.from_numpy(rows), non_blocking=True)
        recording = self._recording(shape)
        if recording is None:
            return self._run(samples)
        for optimizer in self.train_step.optimizers:
            optimizer.refresh()
        recording.replay()
        return recording.result.clone()

    def _recording(self, shape: tuple[int, int]) -> Recording[StepReport] | None:
        """Returns the recording for a shape, made now if there is none; None where steps run eagerly."""
        if not self._is_capturable:
            return None
        self._recordings.drop_stale()
        recording = self._recordings.find(shape)
        if recording is not None:
            return recording
        recording, reason = self._try_to_record(shape)
        # where one process of several cannot, all run eagerly
        self._is_capturable = not self.train_step.world.any_of([reason is not None])[0]
        if not self._is_capturable:
            said = reason or "another process could not"
            warnings.warn(f"training steps run eagerly, they could not be captured: {said}", stacklevel=3)
            return None
        return recording

    def _try_to_record(self, shape: tuple[int, int]) -> tuple[Recording[StepReport] | None, str | None]:
        """Records a step for a shape; returns the recording, or why that failed."""
        try:
            with restored(self.train_step):
                program = partial(self._recorded_run, shape)
                return self._recordings.add(shape, program), None
        except RuntimeError as error:
            return None, str(error).splitlines()[0]

    def _recorded_run(self, shape: tuple[int, int]) -> StepReport:
        return self.train_step(self.store.gather(self._index, *shape), self._part)

    def _memory(self) -> Iterator[Tensor]:
        """All that a step reads or changes and does not make."""
        yield from self._parameters
        # a module that is moved gets other buffers
        yield from chain.from_iterable(module.buffers(recurse=False) for module in self._buffered)
        for optimizer in self.train_step.optimizers:
            yield from optimizer.memory()
        yield from self.store.memory()
        yield from (self._index, self.train_step.is_finite)


def step_of(train_step: TrainStep, store: Store, options: TrainConfig) -> EagerStep:
    """Returns what runs the steps of a training: captured where options, device and what joins processes allow it.

    Warns:
        Note: where captured steps were asked for, and what the processes exchange cannot be part of one.
    """
    if not options.capture or store.device.type != "cuda":
        return EagerStep(train_step, store)
    if not train_step.world.can_capture:
        text = "training steps run eagerly: this torch has no nccl, and what gloo exchanges is no part of a CUDA graph"
        warnings.warn(Note(text), stacklevel=2)
        return EagerStep(train_step, store)
    return CapturedStep(train_step, store, options.batch_size)


@contextmanager
def restored(train_step: TrainStep) -> Iterator[None]:
    """Restores parameters, moments and counts at the end of the block; moments that it created become zero."""
    # a clone that autograd knows of would keep nodes of the parameters alive, on a stream that no capture may wait for
    before = {name: tensor.detach().clone() for name, tensor in _state(train_step).items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in _state(train_step).items():
                tensor.copy_(before[name]) if name in before else tensor.zero_()
        for optimizer in train_step.optimizers:
            optimizer.zero_grad()


def _state(train_step: TrainStep) -> dict[tuple[Any, ...], Tensor]:
    """Returns all tensors that a step changes, by names that do not change when the first update moves them."""
    named: dict[tuple[Any, ...], Tensor] = {("parameter", p): p for p in train_step.parameters}
    for index, optimizer in enumerate(train_step.optimizers):
        for parameter, state in optimizer.state.items():
            named |= {(moment, parameter): value for moment, value in state.items()}
        named["update", index] = optimizer.param_groups[0]["update"]
    return {**named, ("is_finite",): train_step.is_finite}
