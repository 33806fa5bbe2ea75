"""Programs of a GPU that are recorded once per shape as CUDA graphs and replayed: one launch instead of thousands.

A replay reads and writes the memory of its recording. Two rules follow. Recordings of one program share one pool of
memory, so that each overwrites what the others computed, results included: a result is copied before the next replay,
and what a replay reads is written to memory from before the recordings. And memory that a recording reads must not be
replaced by other memory: recordings are dropped where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
# eager runs before a recording: kernels are compiled and chosen, gradients and moments allocated
WARM_UPS = 2


@dataclass(frozen=True)
class Recording(Generic[Result]):
    """A recorded program.

    Attributes:
        replay: runs it again.
        result: tensors that every run overwrites with its result; other recordings of the pool may, too.
        pool: of the memory in which it computes, for other recordings.
    """

    replay: Callable[[], None]
    result: Result
    pool: Any


class Record(Protocol):
    """Records a program, in the pool of other recordings or, for None, in a new one; RuntimeError where it cannot."""

    def __call__(self, program: Callable[[], Result], pool: Any) -> Recording[Result]: ...


def record_cuda_graph(program: Callable[[], Result], pool: Any, warm_ups: int = WARM_UPS) -> Recording[Result]:
    """Captures a program as a CUDA graph, after some eager runs on a stream of their own.

    Raises:
        RuntimeError: what torch raises if something in the program cannot be captured.
    """
    current = torch.cuda.current_stream()
    stream = _warm_up_stream(current.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            program()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # a capture that fails leaves its own stream as the current one
    with torch.cuda.stream(current), torch.cuda.graph(graph, pool=pool):
        result = program()
    return Recording(graph.replay, result, graph.pool())


@cache
def _warm_up_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: the allocator keeps what a stream has freed for this stream alone."""
    return torch.cuda.Stream(device)


class Recordings(Generic[Result]):
    """Recordings of one program for several shapes, in one pool of memory.

    Args:
        memory: returns all tensors that the program reads or changes and does not make itself, always in one order.
        record: makes a recording.
    """

    def __init__(self, memory: Callable[[], Iterable[Tensor]], record: Record) -> None:
        self._memory, self._record = memory, record
        self._recordings: dict[Hashable, Recording[Result]] = {}
        self._addresses: list[int] = []

    def __len__(self) -> int:
        return len(self._recordings)

    def find(self, shape: Hashable) -> Recording[Result] | None:
        """Returns the recording for a shape, None if there is none."""
        return self._recordings.get(shape)

    def drop_stale(self) -> None:
        """Drops all recordings if memory that they read was replaced; to be called before they are replayed."""
        if self._recordings and self._addresses != self._current_addresses():
            self._recordings.clear()

    def add(self, shape: Hashable, program: Callable[[], Result]) -> Recording[Result]:
        """Records the program for a shape.

        Raises:
            RuntimeError: where it cannot be recorded.
        """
        pool = next((recording.pool for recording in self._recordings.values()), None)
        recording = self._record(program, pool)
        # its warm-up may have moved what the earlier ones read, as the first update moves parameters
        addresses = self._current_addresses()
        if addresses != self._addresses:
            self._recordings.clear()
        self._addresses, self._recordings[shape] = addresses, recording
        return recording

    def _current_addresses(self) -> list[int]:
        return [tensor.data_ptr() for tensor in self._memory()]
