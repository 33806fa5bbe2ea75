"""Ctrl-C ends a program with one line wherever it arrives: during imports, in a library, in the middle of a write."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType

from pps_fast.streams import TolerantStream


def interrupt_in_one_line() -> None:
    """Makes an uncaught Ctrl-C of this process one line; for a process that is one of the programs, as early as can be.

    Within a callback of a library, where Python can raise nothing, the interrupt is raised again right after it.
    """
    show, report = sys.excepthook, sys.unraisablehook

    def show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            TolerantStream(sys.stderr).write("error: interrupted\n")
        else:
            show(kind, error, traceback)

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(0.02, _interrupt_again).start()
        else:
            report(unraisable)

    sys.excepthook, sys.unraisablehook = show_error, raise_again


def _interrupt_again() -> None:
    # a signal and not a flag: it also ends a wait
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class InterruptWatch:
    """Inside its `with` block, any error that follows a Ctrl-C is that Ctrl-C: a library may have swallowed it halfway.

    A program that is interrupted while numpy is imported, or while HDF5 writes, ends with whatever error that leads
    to; out of the block comes a KeyboardInterrupt. Outside the main thread, or where Ctrl-C is handled by somebody
    else, the block changes nothing.

    Attributes:
        is_interrupted: a Ctrl-C came, and nobody but this block has handled it.
    """

    def __init__(self) -> None:
        self.is_interrupted = False
        self._is_installed = False

    def __enter__(self) -> InterruptWatch:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._receive)
            self._is_installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.is_interrupted and isinstance(error, Exception):
            raise KeyboardInterrupt from error

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.is_interrupted = True
        raise KeyboardInterrupt
