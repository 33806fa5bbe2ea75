"""Several processes of one training, started as torchrun starts them but without it, so that a test waits for less."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

# a server forks children that have already imported torch; itself it has run nothing, so that forking it is safe
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pps_fast.train.__main__", "pps_fast.pipeline", "torch._dynamo"])


def free_port() -> int:
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(size: int, target: Callable[..., Any], *arguments: Any, output: Path) -> list[BaseProcess]:
    """Starts processes that call `target(*arguments)`; what they print goes to files (see `printed`).

    Args:
        target: of the top of a module; returns an exit status or None.
    """
    port = free_port()
    processes = [
        _CONTEXT.Process(target=_child, args=(rank, size, port, str(output), target, arguments), daemon=True)
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    return processes


def wait(processes: Sequence[BaseProcess], timeout_s: float = 120.0) -> list[int | None]:
    """Returns the exit codes, None of a process that did not end in time and was killed."""
    end = time.monotonic() + timeout_s
    for process in processes:
        process.join(max(end - time.monotonic(), 0))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
    return codes


def run(size: int, target: Callable[..., Any], *arguments: Any, output: Path) -> list[str]:
    """Runs such processes to their end and returns what each has printed.

    Raises:
        RuntimeError: where one has failed.
    """
    codes = wait(start(size, target, *arguments, output=output))
    texts = printed(size, output)
    if any(codes):
        raise RuntimeError(f"exit codes {codes}: {texts}")
    return texts


def printed(size: int, output: Path) -> list[str]:
    """Returns what each process has printed so far."""
    return [_file(output, rank).read_text(encoding="utf-8") for rank in range(size)]


def _file(output: Path, rank: int) -> Path:
    return output.with_name(f"{output.name}_{rank}.txt")


def _child(rank: int, size: int, port: int, output: str, target: Callable[..., Any], arguments: Sequence[Any]) -> None:
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} if size > 1 else {})
    torch.set_num_threads(1)
    with open(_file(Path(output), rank), "w", encoding="utf-8", buffering=1) as file:
        sys.stdout = sys.stderr = file
        status = target(*arguments)
    sys.exit(status)


def train_command(argv: Sequence[str], is_double: bool = False) -> int:
    """`python -m pps_fast.train` with these arguments, in fp64 if asked for."""
    from pps_fast.train.__main__ import main

    if is_double:
        compute_in_double()
    return main(["--threads", "1", *argv])


def compute_in_double() -> None:
    """Makes trainings and evaluations compute in fp64, but for alignment rows; to be called in a process of its own."""
    from pps_fast import pipeline
    from pps_fast.data.store import Store
    from pps_fast.train import cross_fit, loop

    build, load, assemble, fit = loop.PPS, pipeline.load_model, Store._assembled, cross_fit.fit_confidence

    def load_double(*names: Any) -> Any:
        model, config, sizes = load(*names)
        return model.double(), config, sizes

    # no part of a step
    cross_fit.fit_confidence = lambda alignment, *data: fit(deepcopy(alignment).float(), *data)
    pipeline.load_model = load_double  # type: ignore[assignment]
    loop.PPS = lambda *sizes: build(*sizes).double()  # type: ignore[misc, assignment]
    Store._assembled = lambda *values: assemble(*values).to(dtype=torch.float64)  # type: ignore[method-assign]
