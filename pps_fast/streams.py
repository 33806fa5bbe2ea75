"""Printing that can fail without consequence: results are in files before they are printed, and a reader may leave.

A closed stdout or stderr, a pipe that nobody reads, a full disk behind a redirection and a terminal that lacks a
character change neither what a program writes to files nor its exit status.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

# a reader that has left, on purpose or with its terminal
_NOBODY_LISTENS = (errno.EPIPE, errno.EIO, errno.EBADF)


class TolerantStream:
    """A text stream that drops what cannot be written.

    Args:
        stream: where the text goes; None drops everything, as for a stream that was closed before the program began.

    Attributes:
        error: why text was lost although somebody may have wanted it (a full disk), or None.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_broken = stream is None
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Writes a text, with escapes for characters that the stream lacks."""
        if self._stream is not None and not self._is_broken:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            # a ValueError is a stream that was closed, a RuntimeError a signal's handler within another write
            except (OSError, ValueError, RuntimeError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self._stream is not None and not self._is_broken:
            try:
                self._stream.flush()
            except (OSError, ValueError, RuntimeError) as error:
                self._fail(error)

    def isatty(self) -> bool:
        """Whether a person reads along; False for a stream that is closed."""
        if self._stream is None or self._is_broken:
            return False
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def silence(self) -> None:
        """Makes the interpreter's last flush of a broken stream go nowhere, instead of complaining."""
        # a stream of a test or a caller is theirs to close
        is_standard = self._stream in (sys.__stdout__, sys.__stderr__)
        if self._stream is None or not self._is_broken or not is_standard:
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def _fail(self, error: Exception) -> None:
        # within another write nothing is broken: only this text is dropped
        if isinstance(error, RuntimeError):
            return
        self._is_broken = True
        if isinstance(error, OSError) and error.errno not in _NOBODY_LISTENS:
            self.error = error

    @property
    def encoding(self) -> str | None:
        """How characters are written, None for a stream in memory; libraries ask for it also where nothing is."""
        return "utf-8" if self._stream is None else getattr(self._stream, "encoding", None)

    def fileno(self) -> int:
        """Returns the descriptor.

        Raises:
            OSError: for a stream without one.
        """
        if self._stream is None:
            raise OSError(errno.EBADF, "the stream was closed before the program began")
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        # whatever else a library asks a stream for
        return getattr(self._stream, name)


@contextmanager
def tolerant_streams() -> Iterator[TolerantStream]:
    """Inside the block, stdout and stderr drop what cannot be written; yields the one of stdout."""
    if isinstance(sys.stdout, TolerantStream):
        # a program that another one runs
        yield sys.stdout
        return
    _reserve_descriptors()
    before = sys.stdout, sys.stderr
    out, err = TolerantStream(sys.stdout), TolerantStream(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        for stream in (out, err):
            stream.flush()
            stream.silence()
        sys.stdout, sys.stderr = before


def _reserve_descriptors() -> None:
    """Opens closed standard descriptors on nothing: else the next file is one, and gets what libraries print."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
