"""Describes a source file for the provenance: name, size and hash, without paths or dates."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def describe_source(path: Path) -> dict[str, Any]:
    """Returns name, bytes and sha256 of a file, or name and number of files of a folder."""
    if path.is_dir():
        return {"folder": path.name, "files": sum(entry.is_file() for entry in path.iterdir())}
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
