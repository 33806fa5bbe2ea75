"""Atomic writing: a file is replaced whole or not at all, even if the process or the machine stops."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
"""prefix of temporary files and directories; safe to delete when a killed process has left some"""


class Note(UserWarning):
    """Something a user should know that stops nothing; programs print it as one line on stderr."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success the file of that name becomes `path`, else it is removed.

    The file is on the disk before it is renamed, and the new name before the block ends.
    """
    # several processes may write the same file at the same time; the last one wins
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        # also reached by KeyboardInterrupt
        temporary.unlink(missing_ok=True)


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


def read_json(path: Path, fields: tuple[str, ...]) -> dict[str, Any]:
    """Returns the object in `path`.

    Raises:
        ValueError: where the file is missing, damaged or lacks one of `fields`; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: missing; copy the whole directory again")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged, not JSON ({error}); copy it again") from error
    if not isinstance(values, dict) or any(name not in values for name in fields):
        raise ValueError(f"{path}: expected an object with {', '.join(fields)}; pps_fast did not write this file")
    return values


def flush(path: Path) -> None:
    """Waits (fsync) until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
