"""JSON Lines files that grow with a run; a resumed run leaves no line twice and none incomplete."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from pps_fast.files import naming_full_disk, replace_text


class JsonLines:
    """Appends objects with a field "step" to a file; lines after `step` are removed first, so that none appears twice.

    Args:
        path: the file, created where it does not exist.
        step: updates already done.
    """

    def __init__(self, path: Path, *, step: int = 0) -> None:
        if path.exists():
            replace_text(path, _lines_until(path, step))
        self._path = path
        # also read, where the file is deleted while it grows
        self._file = open(path, "a+", encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        """Appends and flushes one line, so that it survives a kill of the process.

        Raises:
            FullDiskError: for want of space.
        """
        with naming_full_disk(self._path):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def rewrite(self) -> None:
        """Writes the file again where it was deleted; a network file system may have lost its lines."""
        if self._path.exists() and os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
            return
        try:
            self._file.seek(0)
            text = self._file.read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            text = ""
        replace_text(self._path, text)
        self._file.close()
        self._file = open(self._path, "a+", encoding="utf-8")

    def close(self) -> None:
        """Closes the file.

        Raises:
            FullDiskError: for want of space.
        """
        with naming_full_disk(self._path):
            self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _lines_until(path: Path, step: int) -> str:
    """Returns the complete lines up to `step`."""
    # a killed process can leave the last line incomplete
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    return "".join(line for line in complete if json.loads(line)["step"] <= step)
