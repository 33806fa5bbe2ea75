"""Programs in child processes that have imported everything, watched: time, memory, exit status, what was printed."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
# of address space: what is refused for want of memory is refused before the machine suffers
_MEMORY = 12 << 30


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a program ended.

    Attributes:
        status: exit status, below 0 the signal that ended it, None after the time limit.
        text: what it printed, both streams, in their order.
        grown: bytes of memory that it took at most, beyond what it began with.
    """

    status: int | None
    text: str
    grown: int


def call(
    program: str,
    argv: list[str],
    output: Path,
    *,
    cwd: Path | None = None,
    time_limit_s: float,
    streams: str = "open",
    setup: Callable[..., Any] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Done:
    """Runs a program in a child process.

    Args:
        program: module with `main`.
        argv: its command line.
        output: file for what it prints.
        cwd: its working directory; that of `output` if not given.
        time_limit_s: seconds after which it is killed.
        streams: a key of STREAMS, what stdout and stderr are.
        setup: called with `arguments` in the child, before the program.
    """
    # other tests' helpers name less for the same server
    _CONTEXT.set_forkserver_preload(["tests.campaign.everything"])
    process = _CONTEXT.Process(
        target=_run, args=(program, argv, output, cwd or output.parent, streams, setup, arguments), daemon=False
    )
    process.start()
    process.join(time_limit_s)
    status = process.exitcode
    if status is None:
        for end in (os.killpg, os.kill):
            try:
                end(process.pid or 0, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.join()
    process.close()
    text = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
    peak = output.with_suffix(".peak")
    grown = int(peak.read_text()) if peak.is_file() else 0
    for path in (output, peak):
        path.unlink(missing_ok=True)
    return Done(status=status, text=text, grown=grown)


def _run(
    program: str,
    argv: list[str],
    output: Path,
    cwd: Path,
    streams: str,
    setup: Callable[..., Any] | None,
    arguments: tuple[Any, ...],
) -> None:
    os.setsid()
    # what a relative path names is in the folder that is looked at afterwards
    os.chdir(cwd)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    before = _peak()
    status: Any = 1
    STREAMS[streams](file)
    try:
        if setup is not None:
            setup(*arguments)
        status = import_module(program).main(argv)
    except SystemExit as end:
        status = end.code
    except BaseException:
        os.write(file, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except (OSError, ValueError):
                pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        output.with_suffix(".peak").write_text(str(max(0, _peak() - before)))
    # without the end of the interpreter, which waits for threads that a killed library has left
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _both(file: int) -> None:
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="strict", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _closed(*numbers: int) -> Callable[[int], None]:
    def close(file: int) -> None:
        _both(file)
        for number in numbers:
            os.close(number)
            setattr(sys, "stdout" if number == 1 else "stderr", None)

    return close


def _without_reader(file: int) -> None:
    _both(file)
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)


def _full(file: int) -> None:
    _both(file)
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)


def _ascii(file: int) -> None:
    _both(file)
    sys.stdout = os.fdopen(1, "w", encoding="ascii", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="ascii", closefd=False)


STREAMS: dict[str, Callable[[int], None]] = {
    "open": _both,
    "stdout closed": _closed(1),
    "stderr closed": _closed(2),
    "both closed": _closed(1, 2),
    "nobody reads": _without_reader,
    "full": _full,
    "ascii": _ascii,
}
