"""Which compilations the kernels of a step need, without running one, and how to do them in parallel.

Operators of ours that are called with fake tensors inside `record_launches` run their launchers, which allocate fake
results and launch nothing. What they would launch is recorded by what Triton's compiler distinguishes: dtypes of
pointers, constants, and of run-time integers whether they are 1 or multiples of 16.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from pps_fast.ops import registration


@dataclass(frozen=True)
class Compilation:
    """One specialization of a kernel.

    Attributes:
        name: of the kernel.
        distinguished: argument or option -> what the compiler sees of it, as text.
    """

    name: str
    distinguished: tuple[tuple[str, str], ...]


Launches = dict[Compilation, tuple[Any, dict[str, Any]]]
"""what is to be compiled -> the kernel and the arguments of its first launch, a dtype in the place of a tensor"""


def unspecialized(kernel: Any) -> tuple[str, ...]:
    """Returns the integers of a kernel, compiled or interpreted, whose values a launch does not look at."""
    options = getattr(kernel, "kwargs", None)
    names = kernel.do_not_specialize if options is None else options.get("do_not_specialize")
    return tuple(names or ())


@cache
def _run_time(function: Callable[..., Any]) -> frozenset[str]:
    """Returns the arguments of a kernel that are no constants of the compiler."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(parameter.name for parameter in parameters if "constexpr" not in str(parameter.annotation))


def _seen(kernel: Any, name: str, value: Any) -> str:
    """What the compiler sees of an argument of a launch."""
    if isinstance(value, torch.dtype):
        return f"pointer to {value}"
    if value is None or name not in _run_time(kernel.fn) or isinstance(value, bool):
        return repr(value)
    width = 32 if -(1 << 31) <= value < 1 << 31 else 64
    if name in unspecialized(kernel):
        return f"int{width}"
    return "1" if value == 1 else f"int{width}{', a multiple of 16' if value % 16 == 0 else ''}"


@contextmanager
def record_launches() -> Iterator[Launches]:
    """Records what the launches of kernels inside the block have to compile; nothing is launched or compiled.

    Call operators with fake tensors only: no launch writes its results.
    """
    # where Triton is not installed there is nothing to record
    from triton.runtime.jit import KernelInterface

    launches: Launches = {}

    def launcher(kernel: Any, grid: Any) -> Callable[..., None]:
        def record(**arguments: Any) -> None:
            kept = {name: value.dtype if isinstance(value, Tensor) else value for name, value in arguments.items()}
            seen = tuple(sorted((name, _seen(kernel, name, value)) for name, value in kept.items()))
            launches.setdefault(Compilation(kernel.fn.__name__, seen), (kernel, kept))

        return record

    with patch.object(KernelInterface, "__getitem__", launcher), patch.object(registration, "is_recording", True):
        yield launches


def compile_launches(launches: Launches, on_done: Callable[[int], Any], num_threads: int | None = None) -> None:
    """Compiles kernels for the current device, several at once; Triton keeps the results on disk.

    Args:
        launches: what to compile.
        on_done: is called with 1 after each compilation.
        num_threads: compilations at once; as many as there are processors by default.
    """
    import triton
    from triton.runtime.jit import MockTensor

    pool = ThreadPoolExecutor(num_threads or len(os.sched_getaffinity(0)))
    with pool, triton.AsyncCompileMode(pool) as mode:
        for kernel, arguments in launches.values():
            kernel.warmup(grid=(1,), **{name: MockTensor.wrap_dtype(value) for name, value in arguments.items()})
        # those that the process has compiled before are not among them
        on_done(len(launches) - len(mode.raw_futures))
        for future in as_completed(mode.raw_futures):
            future.result()
            on_done(1)
