"""JSON Lines files that grow with a run; a resumed run leaves no line twice and none incomplete."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from pps_fast.files import naming_full_disk, replace_text
from pps_fast.reading import Refused, reading, require_file


class JsonLines:
    """Appends objects with a field "step" to a file; lines after `step` are removed first, so that none appears twice.

    Args:
        path: the file, created where it does not exist.
        step: updates already done.
    """

    def __init__(self, path: Path, *, step: int = 0) -> None:
        if path.exists():
            kept = [text for text, line in _complete_lines(path) if line["step"] <= step]
            replace_text(path, "".join(kept))
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
    """Returns the objects of a file of JSON lines; a last line that is being written, or was at a kill, is left out.

    Raises:
        ValueError: for a file that is missing or damaged; the message names file and line.
    """
    return [line for _, line in _complete_lines(path)]


def _complete_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns text and content of the complete lines."""
    require_file(path)
    with reading(path):
        # not str.splitlines, which would also cut at separators inside a text
        texts = path.read_bytes().decode("utf-8").split("\n")
        return [(f"{text}\n", _parse(text, number)) for number, text in enumerate(texts[:-1], start=1)]


def _parse(text: str, number: int) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"line {number} is damaged, not JSON; copy the file again or remove that line") from error
    step = line.get("step") if isinstance(line, dict) else None
    if type(step) is not int or not 0 <= step < 2**62:
        raise Refused(f"line {number} is no object with a step; copy the file again or remove that line")
    return line
