"""What joins the processes of a training: numbers and texts through torch.distributed, and what was lost with whom.

Tensors of a GPU go through nccl, all others through gloo.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from traceback import clear_frames
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pps_fast.devices import Device, choose_device
from pps_fast.distributed import ALONE, Place, World, this_place
from pps_fast.files import Note

# how long a process that lost another one looks for the reason, and for who else is still there
_DIAGNOSIS_S = 2.0
_RESTART = "what was saved is continued with --resume"


class LostProcessError(ConnectionError):
    """Another process of the training has failed, died, or does not answer; the message says which and why."""


class Group(World):
    """Several processes, joined by torch.distributed from the beginning of its `with` block to its end.

    An error that leaves the block is told to the others, whose next exchange then ends with a `LostProcessError` that
    has its text; so does an exchange with a process that has died, or for which this one has waited too long.

    Args:
        place: of this process.
        timeout_s: how long to wait for another process.
    Raises:
        ValueError: in a torch without gloo.
        LostProcessError: where the processes do not meet.
    """

    def __init__(self, place: Place, timeout_s: float) -> None:
        if not dist.is_available() or not dist.is_gloo_available():
            raise ValueError("this build of torch has no gloo, which joins processes; start only one")
        self.place, self.timeout_s = place, timeout_s
        self.can_capture = torch.cuda.is_available() and dist.is_nccl_available()
        self._is_lost = False
        self._notes = warnings.catch_warnings()

    def __enter__(self) -> Group:
        backend = "cpu:gloo,cuda:nccl" if self.can_capture else "gloo"
        wait = timedelta(seconds=self.timeout_s)
        try:
            dist.init_process_group(backend, rank=self.place.rank, world_size=self.size, timeout=wait)
        except RuntimeError as error:
            raise LostProcessError(f"the processes have not met: {str(error).splitlines()[0]}") from error
        self._store = dist.distributed_c10d._get_default_store()
        self._notes.__enter__()
        if not self.is_first:
            # the first process says it
            warnings.simplefilter("ignore", Note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._notes.__exit__(None, None, None)
        try:
            if error is None:
                # nobody leaves before all have what they need
                self.largest(0)
            elif not self._is_lost:
                _ignore_termination()
                self._publish(error)
        finally:
            self._leave()
        if error is not None and not self._is_lost and self._is_said(error):
            raise SystemExit(1 if isinstance(error, FloatingPointError) else 2)

    def device(self, name: Device) -> torch.device:
        device, number = choose_device(name), self.place.local_rank
        if device.type == "cpu":
            return device
        count = torch.cuda.device_count()
        if number >= count:
            raise ValueError(
                f"device = {name!r}: process {number + 1} of this machine has no GPU, there are {count}; start as many "
                f"processes as GPUs with --nproc-per-node {count}, or use --device cpu"
            )
        torch.cuda.set_device(number)
        return torch.device("cuda", number)

    def sum_(self, tensor: Tensor) -> None:
        self._exchange(lambda: dist.all_reduce(tensor))

    def merge_(self, tensor: Tensor) -> None:
        # bits and not numbers: 0 + -0.0 is 0.0
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        self.sum_(tensor.view(bits))

    def broadcast_(self, tensor: Tensor) -> None:
        whole = tensor.detach().contiguous()
        self._exchange(lambda: dist.broadcast(whole, 0))
        tensor.detach().copy_(whole)

    def any_of(self, flags: list[bool]) -> list[bool]:
        return [bool(flag) for flag in self._maxima([int(flag) for flag in flags])]

    def largest(self, number: int) -> int:
        return self._maxima([number])[0]

    def tell(self, text: str) -> str:
        content = text.encode() if self.is_first else b""
        size = self.largest(len(content))
        letters = torch.tensor(list(content.ljust(size)), dtype=torch.uint8)
        self.broadcast_(letters)
        return bytes(letters.tolist()).decode()

    def require_same(self, **values: Any) -> None:
        first = json.loads(self.tell(json.dumps(values)))
        mine = json.loads(json.dumps(values))
        names = [name for name in mine if mine[name] != first[name]]
        if names:
            said = "; ".join(f"{name} is {_short(mine[name])}, of rank 0 {_short(first[name])}" for name in names)
            raise ValueError(f"{said}: start all processes with the same command, code and data")
        # nobody goes on where another one has to stop
        self.largest(0)

    def _maxima(self, numbers: list[int]) -> list[int]:
        values = torch.tensor(numbers, dtype=torch.int64)
        self._exchange(lambda: dist.all_reduce(values, op=dist.ReduceOp.MAX))
        return values.tolist()

    def _exchange(self, call: Callable[[], Any]) -> None:
        """Calls what waits for all processes.

        Raises:
            LostProcessError: where that fails.
        """
        try:
            call()
        except RuntimeError as error:
            self._is_lost = True
            _ignore_termination()
            # at once, so that who waits for this process learns of it, too; frames hold what failed and its connections
            clear_frames(error.__traceback__)
            self._leave()
            raise LostProcessError(self._diagnosis(str(error))) from error

    def _leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def _publish(self, error: BaseException) -> None:
        """Tells the others why this process ends."""
        try:
            self._store.set(f"failure/{self.place.rank}", _reason(error))
        except RuntimeError as store_error:
            raise LostProcessError(f"{_reason(error)}; and the first process has died") from store_error

    def _is_said(self, error: BaseException) -> bool:
        """Whether the first process ends for the same reason and says so; returns when the others can know of it."""
        # a loss that is not finite is so in all processes
        is_said = isinstance(error, FloatingPointError) and not self.is_first
        try:
            if not self.is_first and not is_said:
                self._wait_until(lambda: self._has("failure", 0) or self._has("alive", 0))
                is_said = self._has("failure", 0) and self._store.get("failure/0").decode() == _reason(error)
            self._finish(range(self.size))
        except RuntimeError:
            # the first process keeps the store where no agent of torchrun does, and is gone
            return is_said
        return is_said

    def _diagnosis(self, message: str) -> str:
        """Says which process was lost and why, from what the processes have left in the store."""
        try:
            self._store.set(f"alive/{self.place.rank}", "")
            self._wait_until(lambda: bool(self._which("failure")) or len(self._which("alive")) == self.size)
            failed, alive = self._which("failure"), self._which("alive")
            reason = self._store.get(f"failure/{failed[0]}").decode() if failed else ""
            # a process that is slow to look must find the reason still there
            self._finish(range(self.size) if failed else alive)
        except RuntimeError:
            failed, alive, reason = [], list(range(1, self.size)), ""
        if failed:
            return f"ended, because rank {failed[0]} failed: {reason}"
        silent = [str(rank) for rank in range(self.size) if rank not in alive]
        lost = f"rank {', '.join(silent)}" if silent else "a process"
        if "timed out" in message.lower():
            return (
                f"ended, because {lost} has not answered for {self.timeout_s:g} s: it hangs, or does something that "
                f"takes longer (--timeout-s); {_RESTART}"
            )
        return f"ended, because {lost} has died without a word: killed, or out of memory; {_RESTART}"

    def _has(self, name: str, rank: int) -> bool:
        return bool(self._store.check([f"{name}/{rank}"]))

    def _which(self, name: str) -> list[int]:
        return [rank for rank in range(self.size) if self._has(name, rank)]

    def _finish(self, others: Iterable[int]) -> None:
        """Tells that this process has read what it wanted; the first one, which may keep the store, goes last."""
        self._store.set(f"done/{self.place.rank}", "")
        if self.is_first:
            self._wait_until(lambda: set(others) <= set(self._which("done")))

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + _DIAGNOSIS_S
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)


def joined(timeout_s: float) -> AbstractContextManager[World]:
    """Joins the processes that torchrun has started, from the beginning of the `with` block to its end.

    Args:
        timeout_s: how long to wait for another process, above 0.
    Raises:
        ValueError: as `place_of`, and for another timeout.
    """
    if not 0 < timeout_s <= 1e6:
        raise ValueError(f"timeout_s = {timeout_s}: expected seconds, above 0 and at most 1,000,000")
    place = this_place()
    return nullcontext(ALONE) if place.size == 1 else Group(place, timeout_s)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _reason(error: BaseException) -> str:
    """Returns the text of an error in one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _ignore_termination() -> None:
    """Lets a process that ends anyway say why: torchrun sends SIGTERM to all others as soon as one has ended."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
