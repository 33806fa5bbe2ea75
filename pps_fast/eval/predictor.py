"""Asks a model about batches in evaluation mode, without gradients; on a GPU as CUDA graphs (see `recordings`)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.ops.weights import copies, refresh
from pps_fast.predict import predict
from pps_fast.recordings import Record, Recording, Recordings, record_cuda_graph
from pps_fast.types import Batch, Prediction

# further shapes run eagerly: few occur, but a grounder may be asked about any number of videos
MAX_RECORDINGS = 32

Answer = Callable[[Batch], Prediction]


def is_captured(config: PPSConfig, device: torch.device) -> bool:
    """Whether batches of an evaluation are captured; an alignment alone is a few products, and reads values back."""
    return config.inference.capture and config.method == "proposals" and device.type == "cuda"


class Predictor:
    """Answers batches by a model; what it records serves as long as it lives.

    A shape of batches is recorded when it comes for the second time. Answers are equal to the bit, recorded or not.
    Where a batch cannot be captured, a warning says why, and all run eagerly from then on.

    Args:
        model: returns the output of a batch; its parameters may change between calls.
        config: precision and selector of the evaluation are read.
        device: of the model and the batches.
        record: makes a recording of a program; None for CUDA graphs where `is_captured`, and else none.
    """

    def __init__(self, model: nn.Module, config: PPSConfig, device: torch.device, record: Record | None = None) -> None:
        if record is None and is_captured(config, device):
            record = partial(record_cuda_graph, warm_ups=1)
        self._model, self._options = model, config.inference
        autocast = partial(torch.autocast, device.type, dtype=torch.bfloat16)
        self._autocast = partial(autocast, enabled=config.inference.precision == "bf16")
        self._inputs = _Inputs()
        self._parameters: list[Tensor] = list(model.parameters())
        self._recordings: Recordings[Prediction] | None = None
        if record is not None:
            self._recordings = Recordings(self._memory, record)
        self._asked: set[tuple[int, ...]] = set()

    @contextmanager
    def evaluating(self) -> Iterator[Answer]:
        """Evaluation mode in the precision of the evaluation; yields the function that answers a batch.

        Its answers [B, ...] are on the device, the caller's to keep. The weights must not change meanwhile. The mode of
        every module is restored.
        """
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            with torch.inference_mode(), self._autocast():
                if self._recordings is not None:
                    self._recordings.drop_stale()
                    refresh(self._parameters)
                yield self._answer
        finally:
            for module, training in modes:
                module.training = training

    def _answer(self, batch: Batch) -> Prediction:
        recording = None if self._recordings is None else self._recording(self._recordings, batch)
        if recording is None:
            return self._run(batch)
        self._inputs.put(batch)
        recording.replay()
        return Prediction(**{name: value.clone() for name, value in vars(recording.result).items()})

    def _run(self, batch: Batch) -> Prediction:
        return predict(self._model(batch, with_negatives=False), self._options.selector)

    def _recording(self, recordings: Recordings[Prediction], batch: Batch) -> Recording[Prediction] | None:
        """Returns the recording for batches of this shape; None where this one runs eagerly."""
        shape = tuple(batch.words.shape)
        recording = recordings.find(shape)
        if recording is not None:
            return recording
        if shape not in self._asked or len(recordings) == MAX_RECORDINGS:
            self._asked.add(shape)
            # room for the largest shape, before any is recorded if it comes first
            self._inputs.reserve(batch)
            recordings.drop_stale()
            return None
        fixed = self._inputs.put(batch)
        try:
            return recordings.add(shape, partial(self._recorded_run, fixed))
        except RuntimeError as error:
            self._recordings = None
            said = str(error).splitlines()[0]
            warnings.warn(f"evaluation runs eagerly, it could not be captured: {said}", stacklevel=4)
            return None

    def _recorded_run(self, batch: Batch) -> Prediction:
        # a weight that was cast for other batches would not lie in the recording's memory
        with self._autocast(cache_enabled=False):
            return self._run(batch)

    def _memory(self) -> Iterator[Tensor]:
        """All that a recorded batch reads and does not make."""
        yield from self._parameters
        yield from self._model.buffers()
        yield from copies(self._parameters)
        yield from self._inputs.memory()


class _Inputs:
    """Memory from which recordings read their batches: of each field, that of the largest batch so far."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def reserve(self, batch: Batch) -> None:
        """Makes room for batches of this shape."""
        for name, value in batch.tensors().items():
            if name not in self._buffers or self._buffers[name].numel() < value.numel():
                self._buffers[name] = torch.empty(value.numel(), dtype=value.dtype, device=value.device)

    def put(self, batch: Batch) -> Batch:
        """Copies a batch for which there is room, and returns it as it lies there."""
        places = {name: self._buffers[name][: x.numel()].view(x.shape) for name, x in batch.tensors().items()}
        # not the words' total: padding is computed, so that the shape of a batch is that of its words
        put: dict[str, Any] = {name: places[name].copy_(value) for name, value in batch.tensors().items()}
        return Batch(**put)

    def memory(self) -> list[Tensor]:
        """All of it."""
        return list(self._buffers.values())
