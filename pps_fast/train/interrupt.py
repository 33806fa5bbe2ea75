"""Graceful shutdown: finish and save the current step on SIGINT, SIGTERM or SIGHUP."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

# SIGHUP: the terminal was closed, or the connection to the machine lost
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Inside its `with` block, the first of these signals only sets `signal`; a SIGINT after it interrupts at once.

    A signal that the process was started to ignore, as `nohup` does with SIGHUP, stays ignored. Outside the main
    thread, where Python delivers no signals, the block changes nothing.

    Args:
        is_shown: say so; in one of several processes.

    Attributes:
        signal: number of the signal received, or None.
    """

    def __init__(self, *, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self.signal: int | None = None
        # handlers as `signal.signal` returns them
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if signal.SIGINT in self._previous:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if not self._is_shown:
            return
        try:
            print("\nstopping after this step; Ctrl-C again stops at once, without saving", file=sys.stderr, flush=True)
        except (OSError, ValueError, RuntimeError):
            # the terminal is gone, or the signal came in the middle of another line: the step is saved all the same
            return
