"""Tasks in processes of their own, several at once: what one of them breaks or crashes on, the others never see.

Kernels are compiled on the host, one at a time in a process: 16 processes compile about as many at once. A kernel that
reads where it must not ends its process's use of the device, and that of no other.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from benchmarks.rows import Row

# yields what is sent to the parent, one row at a time
Task = Callable[..., Iterator[Row]]


def num_processors() -> int:
    """Returns the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    task: Task, arguments: Sequence[tuple[Any, ...]], deadline: float, num_workers: int | None = None
) -> Iterator[tuple[tuple[Any, ...], Row]]:
    """Calls `task` once for each tuple of arguments, in a process each, and yields rows as they come.

    A process that dies, and one that was stopped or never started because time ran out, yields a last row with the
    columns `status` ("failed" or "not run") and `why`.

    Args:
        task: a function of a module, which other processes can import.
        arguments: of each call, in the order they start in.
        deadline: on the clock of `time.monotonic`; what runs then is ended.
        num_workers: processes at once; as many as there are processors by default.
    Yields:
        The arguments of a call and one of its rows.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([task.__module__])
    waiting, running = list(arguments), dict[Connection, tuple[Any, tuple[Any, ...]]]()
    try:
        while waiting or running:
            while waiting and len(running) < (num_workers or num_processors()) and time.monotonic() < deadline:
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(target=_send_rows, args=(task, waiting[0], writer), daemon=True)
                process.start()
                writer.close()
                running[reader] = process, waiting.pop(0)
            ready = wait(list(running), timeout=max(deadline - time.monotonic(), 0.0))
            for reader in ready:
                yield from _receive(reader, running)
            if not ready and time.monotonic() >= deadline:
                stopped = [called for _, called in running.values()]
                yield from ((called, _row("not run", "interrupted: the time is spent")) for called in stopped)
                yield from ((called, _row("not run", "the time is spent")) for called in waiting)
                return
    finally:
        for process, _ in running.values():
            process.kill()


def _receive(reader: Any, running: dict[Any, tuple[Any, tuple[Any, ...]]]) -> Iterator[tuple[tuple[Any, ...], Row]]:
    """Yields the next row of a process, or how it ended, if badly."""
    process, called = running[reader]
    try:
        yield called, reader.recv()
    except EOFError:
        process.join()
        del running[reader]
        if process.exitcode != 0:
            yield called, _row("failed", f"its process ended with exit code {process.exitcode}")


def _row(status: str, why: str) -> Row:
    return {"status": status, "why": why}


def _send_rows(task: Task, arguments: tuple[Any, ...], writer: Connection) -> None:
    """In a process of its own: sends the rows of a task."""
    # the other processors have processes of their own
    torch.set_num_threads(1)
    try:
        for row in task(*arguments):
            writer.send(row)
    except Exception as error:
        writer.send(_row("failed", f"{type(error).__name__}: {error}"[:2000]))
