"""Several threads that are a world of processes to the code they run: what it computes, without starting any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from pps_fast.distributed import Place, World

Result = TypeVar("Result")


class ThreadWorld(World):
    """One of `size` threads; `shared` is what they have in common."""

    def __init__(self, rank: int, size: int, shared: _Shared) -> None:
        self.place, self._shared = Place(rank=rank, size=size), shared

    def sum_(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self._all(tensor.clone())).sum(0))

    def merge_(self, tensor: Tensor) -> None:
        self.sum_(tensor)

    def broadcast_(self, tensor: Tensor) -> None:
        tensor.detach().copy_(self._all(tensor.detach().clone())[0])

    def any_of(self, flags: list[bool]) -> list[bool]:
        return [any(column) for column in zip(*self._all(flags), strict=True)]

    def largest(self, number: int) -> int:
        return max(self._all(number))

    def tell(self, text: str) -> str:
        return str(self._all(text)[0])

    def _all(self, value: Any) -> list[Any]:
        return self._shared.exchange(self.place.rank, value)


class _Shared:
    def __init__(self, size: int) -> None:
        self._slots: list[Any] = [None] * size
        self._barrier = threading.Barrier(size, timeout=60)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._slots[rank] = value
        self._barrier.wait()
        values = list(self._slots)
        # nobody writes the next value before all have read this one
        self._barrier.wait()
        return values

    def abort(self) -> None:
        self._barrier.abort()


def in_threads(size: int, program: Callable[[World], Result]) -> list[Result]:
    """Runs a program in a world of `size` threads and returns what each of them returned; raises the first error."""
    shared = _Shared(size)

    def one(rank: int) -> Result:
        try:
            return program(ThreadWorld(rank, size, shared))
        except BaseException:
            shared.abort()
            raise

    with ThreadPoolExecutor(size) as threads:
        results = [threads.submit(one, rank) for rank in range(size)]
        errors = [error for error in (result.exception() for result in results) if error is not None]
        real = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
        for error in (*real, *errors):
            raise error
        return [result.result() for result in results]
