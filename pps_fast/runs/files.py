"""Small files that are replaced whole or not at all, even if the process or the machine stops."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
"""start of every name that may be left behind by a kill and means nothing"""


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Replaces `path` by `values` as JSON, all of it or nothing."""
    replace_text(path, json.dumps(values, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` in UTF-8, all of it or nothing, and waits until that is on the disk."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`, all of it or nothing, and waits until that is on the disk."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    flush(path.parent)


def read_json(path: Path, fields: tuple[str, ...]) -> dict[str, Any]:
    """Returns the object in `path`; ValueError where it is missing, damaged or lacks one of `fields`."""
    if not path.is_file():
        raise ValueError(f"{path}: missing; copy the whole directory again")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged, not JSON ({error}); copy it again") from error
    if not isinstance(values, dict) or any(name not in values for name in fields):
        raise ValueError(f"{path}: expected an object with {', '.join(fields)}; the file is not of pps_fast")
    return values


def flush(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
