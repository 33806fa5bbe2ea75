"""One place that turns every failure of reading a file into one sentence that keeps the true cause.

`with reading(path):` around the code that reads `path` is all a reader needs.
"""

from __future__ import annotations

import csv
import errno
import json
import lzma
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

MAX_MESSAGE = 1000
"""characters of an error at most"""

FAILURES: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    SystemError,
    AssertionError,
    ImportError,
    SyntaxError,
    UnpicklingError,
    csv.Error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)
"""what json, csv, zipfile, numpy, h5py and torch raise for files that are damaged, hostile or of another kind"""

_MAX_PATH = 240
_LOCKED = "open for writing in another process; wait until that is done, or close it there"
_FULL = "no space is left on the disk; make room"

# what the system says -> what that means and what to do
_SYSTEM_CAUSES = {
    errno.ENOENT: "no such file; check the path",
    errno.ENOTDIR: "no such file, a part of its path is no folder; check the path",
    errno.EISDIR: "a folder where a file was expected; name the file in it",
    errno.EACCES: "permission denied; change its permissions or copy it",
    errno.EPERM: "permission denied; change its permissions or copy it",
    errno.EAGAIN: _LOCKED,
    errno.ENOLCK: "the file system cannot lock it; copy it to a local disk",
    errno.EMFILE: "too many files are open; close some or raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; close some",
    errno.ENOMEM: "not enough memory to read it; close other programs or use a larger machine",
    errno.ENOSPC: _FULL,
    errno.EFBIG: "larger than a file may be here (ulimit -f, or the kind of disk); name a file on another disk",
    errno.EDQUOT: "the quota of the disk is used up; make room",
    errno.EIO: "the disk reports an error while it is read; check the disk, then copy the file again",
    errno.ESTALE: "it was replaced or removed on the file server while it was read; start again",
    errno.ENAMETOOLONG: "the path is too long; check it",
    errno.ELOOP: "its links lead in a circle; name the file itself",
}

# what HDF5, numpy and torch write about causes that have no number -> what that means and what to do
_LIBRARY_CAUSES = (
    ("unable to lock file", _LOCKED),
    ("already open for", _LOCKED),
    ("truncated file", "truncated, its end is missing; fetch it again"),
    ("file signature not found", "not an HDF5 file; name the right file or fetch it again"),
    # where no folder of plug-ins exists, HDF5 complains about that instead of the filter
    ("can't open directory", "compressed with an HDF5 filter that is not installed; install hdf5plugin or repack it"),
    ("required filter", "compressed with an HDF5 filter that is not installed; install hdf5plugin or repack it"),
    ("memory allocation failed", _SYSTEM_CAUSES[errno.ENOMEM]),
    ("unable to allocate", _SYSTEM_CAUSES[errno.ENOMEM]),
    ("can't allocate", _SYSTEM_CAUSES[errno.ENOMEM]),
    ("allow_pickle=false", "holds Python objects, which could run code; store plain numbers"),
    ("contains pickled", "not a file of plain arrays; name the right file or fetch it again"),
    ("password required", "an encrypted archive; unpack it first"),
    ("no space left", _FULL),
)


class Refused(ValueError):
    """Why content is refused and what to do, without the name of the file, which `reading` puts in front."""


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns every failure within the block into a ValueError of one sentence: path, true cause, remedy.

    A ValueError whose message already begins with the path or its name is such a sentence and passes.

    Raises:
        ValueError: of at most MAX_MESSAGE characters, without line breaks, the original error as its cause.
    """
    path = Path(path)
    try:
        yield
    except ValueError as error:
        if not str(error).startswith((f"{path}", path.name)) or len(str(error)) > MAX_MESSAGE:
            raise ValueError(one_sentence(_sentence(error, path))) from error
        raise
    except FAILURES as error:
        raise ValueError(one_sentence(f"{shown(path)}: {cause_of(error)}")) from error


def _sentence(error: ValueError, path: Path) -> str:
    text = str(error)
    return text if text.startswith((f"{path}", path.name)) else f"{shown(path)}: {cause_of(error)}"


def cause_of(error: BaseException) -> str:
    """Says in words why a file could not be read, and what to do; without its name, in one line."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, MemoryError):
        return _SYSTEM_CAUSES[errno.ENOMEM]
    if isinstance(error, RecursionError):
        return "nested too deeply to be read; name another file"
    if isinstance(error, UnicodeDecodeError):
        return f"not text (byte {error.start} is not UTF-8); name a text file or save it as UTF-8"
    if isinstance(error, json.JSONDecodeError):
        where = f"line {error.lineno}, column {error.colno}"
        return f"not complete JSON ({where}: {error.msg}); the file is truncated or damaged, fetch it again"
    if isinstance(error, OSError) and error.errno in _SYSTEM_CAUSES:
        return _SYSTEM_CAUSES[error.errno]
    text = str(error).lower()
    for mark, cause in _LIBRARY_CAUSES:
        if mark in text:
            return cause
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({os.strerror(error.errno)}); check the file and its disk"
    if isinstance(error, UnpicklingError):
        return "refused, because it is damaged or holds more than plain arrays, which could run code; fetch it again"
    if isinstance(error, EOFError):
        return "truncated, its end is missing; fetch it again"
    if isinstance(error, zipfile.BadZipFile | zlib.error):
        return "a broken archive: truncated, damaged or of another kind; fetch it again"
    return f"cannot be read ({brief(error)}): it is truncated, damaged or of another kind; fetch it again"


def brief(error: BaseException, limit: int = 160) -> str:
    """Returns the first sentence of what a library says, in one line, for the inside of a message."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [""]
    return cut(f"{type(error).__name__}: {lines[0]}".rstrip(": "), limit)


def require_file(path: str | Path) -> Path:
    """Returns the path of a regular file, which can be read to its end and a second time.

    Raises:
        ValueError: where there is none, it is a folder, or a pipe or device; the message says which.
    """
    path = Path(path)
    with reading(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        if not path.is_file():
            # a missing file fails here
            path.stat()
            raise ValueError(f"{path}: a pipe or device, not a file; save its content to a file")
    return path


def one_sentence(message: object, limit: int = MAX_MESSAGE) -> str:
    """Returns a message in one line of at most `limit` characters, which every terminal can print.

    Line breaks become blanks; control characters and halves of surrogate pairs are escaped.
    """
    text = " ".join(str(message).split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return cut(text, limit)


def cut(text: str, limit: int) -> str:
    """Returns a text of at most `limit` characters: a longer one loses its middle."""
    if len(text) <= limit:
        return text
    head = (limit - 5) * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (limit - 5 - head) :]}"


def cut_lines(text: str, limit: int = MAX_MESSAGE) -> str:
    """Returns a text of several lines, within a box or not; of more than `limit` characters, it loses middle lines.

    Colors, the box and the blanks that fill it do not count.
    """
    lines = text.split("\n")
    sizes = [len(re.sub(r"\x1b\[[0-9;]*m", "", line).strip("\u2502\u256d\u256e\u2570\u256f\u2500 ")) for line in lines]
    if sum(sizes) <= limit:
        return text
    head, tail, free = 0, len(lines), limit - 40
    while head < tail and min(sizes[head], sizes[tail - 1]) <= free:
        # two lines of the beginning for one of the end
        is_head = sizes[head] <= free and (sizes[tail - 1] > free or sum(sizes[:head]) <= 2 * sum(sizes[tail:]))
        free -= sizes[head] if is_head else sizes[tail - 1]
        head, tail = (head + 1, tail) if is_head else (head, tail - 1)
    return "\n".join([*lines[:head], f"  ... {tail - head:,} more lines ...", *lines[tail:]])


def shown(path: str | Path) -> str:
    """Returns a path as messages show it: a very long one loses its middle."""
    return cut(str(path), _MAX_PATH)


def listed(names: Iterable[object], most: int = 8) -> str:
    """Returns "a, b, c and 2,997 more": a list as messages show it, each name cut to 60 characters."""
    words = [cut(str(name), 60) for name in names]
    rest = len(words) - most
    return ", ".join(words) if rest <= 0 else f"{', '.join(words[:most])} and {rest:,} more"
