"""Atomic writing: a file is replaced whole or not at all, even if the process or the machine stops."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pps_fast.reading import Refused, reading, require_file, shown

TEMPORARY = ".tmp-"
"""prefix of temporary files and directories"""

# .tmp-NAME.PID was written before the host became part of the name
_TEMPORARY_FILE = re.compile(r"\.tmp-(?P<name>.+?)(?:@(?P<host>[A-Za-z0-9-]+))?\.(?P<pid>\d+)")
# a temporary file that nobody has written to for so long has no process any more, wherever that ran
_ABANDONED_S = 86400.0
# what a desktop or a network file system leaves in any directory: nobody's work
_LITTER = re.compile(r"\.DS_Store|\.nfs[0-9a-fA-F]+")
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows (ulimit -f)",
}


class Note(UserWarning):
    """Something a user should know that stops nothing; programs print it as one line on stderr."""


class FullDiskError(OSError):
    """A file could not be written for want of space; the message names it and says what to do."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success the file of that name becomes `path`, else it is removed.

    The file is on the disk before it is renamed, and the new name before the block ends.

    Raises:
        ValueError: where something else than a file has the name, which stays.
    """
    if path.exists() and not path.is_file():
        # renaming would put a file in the place of a device, of this machine's /dev/null for one
        raise ValueError(f"{shown(path)}: a folder, pipe or device, not a file to write; name another")
    # several processes may write the same file at the same time; the last one wins
    temporary = path.with_name(f"{TEMPORARY}{path.name}@{host_name()}.{os.getpid()}")
    _remove_abandoned(path)
    try:
        with naming_full_disk(path):
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)
    finally:
        # also reached by KeyboardInterrupt
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turns the error of a full disk, which names no file, into one that names `path` and the remedy.

    Raises:
        FullDiskError: where the disk is full, a quota is used up, or a limit on the size of files is met.
    """
    try:
        yield
    except FullDiskError:
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        remedy = "make room, or write to a folder on another disk; files that were complete before still are"
        raise FullDiskError(f"{path}: not written, because {_FULL[error.errno]}; {remedy}") from error


def host_name() -> str:
    """Returns the name of this machine, of letters, digits and hyphens, at most 40 characters."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "unknown"


def is_alive(pid: int) -> bool:
    """Whether this machine runs a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        # somebody else's process; a number that no process can have is no reason to delete anything
        return True
    return True


def is_litter(path: Path) -> bool:
    """Whether a name in a directory is what the system left there: .DS_Store, or .nfs and digits."""
    return _LITTER.fullmatch(path.name) is not None


def is_temporary(path: Path) -> bool:
    """Whether `path` is a regular file, no link, with a name that `replacing` gives while it writes."""
    return _TEMPORARY_FILE.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def _remove_abandoned(path: Path) -> None:
    """Deletes the temporary files for `path` whose process is dead: on this machine, or for a day on any."""
    for other in path.parent.glob(f"{TEMPORARY}*") if path.parent.is_dir() else ():
        match = _TEMPORARY_FILE.fullmatch(other.name)
        if match is None or match["name"] != path.name or not is_temporary(other):
            continue
        is_of_this_host = match["host"] == host_name() and not is_alive(int(match["pid"]))
        if is_of_this_host or time.time() - _modified(other) > _ABANDONED_S:
            other.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    """Returns the time of the last change, which is now for a file that is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def write_json(path: Path, values: dict[str, Any], indent: int = 2) -> None:
    """Replaces `path` by `values` as JSON, all of it or nothing."""
    replace_text(path, json.dumps(values, indent=indent) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` in UTF-8, all of it or nothing, and waits until that is on the disk."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`, all of it or nothing, and waits until that is on the disk."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_json(path: Path, fields: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the object in `path`.

    Raises:
        ValueError: where the file is missing, damaged or lacks one of `fields`; the message names it.
    """
    if not path.exists():
        raise ValueError(f"{path}: missing; copy the whole directory again")
    require_file(path)
    with reading(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or any(name not in values for name in fields):
            names = f" with {', '.join(fields)}" if fields else ""
            raise Refused(f"expected an object{names}; pps_fast did not write this file, or it was changed")
    return values


def flush(path: Path) -> None:
    """Waits (fsync) until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_input(option: str, path: Path | None, inputs: Iterable[Path | None]) -> None:
    """Refuses to write a result over a file that it is made from.

    Raises:
        ValueError: naming option and file.
    """
    known = [one for one in inputs if one is not None and one.exists()]
    if path is not None and path.exists() and any(one.samefile(path) for one in known):
        raise ValueError(f"{option} {shown(path)}: is the input, which would be replaced; name another file")
