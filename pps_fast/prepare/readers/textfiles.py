"""Text files of other people, read whole, with errors that name the file and what to do."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pps_fast.prepare.readers.problems import Problems


def read_text(path: Path) -> str:
    """Returns the text of a UTF-8 file.

    Raises:
        ValueError: when there is no such file or it is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: a folder where a file was expected; name the file in it") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not text (byte {error.start} is not UTF-8); name a text file or fetch it again"
        ) from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields ("file, line n", line) of every line that is not blank."""
    # str.splitlines would also cut at separators that may stand inside a sentence
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path.name}, line {number}", line.rstrip("\r")


def read_json(path: Path, problems: Problems) -> Any:
    """Returns the content of a json file; of a name that occurs twice in an object the first value is kept.

    Raises:
        ValueError: for a file that is not complete JSON.
    """

    def first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for name, value in pairs:
            if name in content:
                problems.add("duplicate id", path.name, f"the name {name!r} occurs twice")
            content.setdefault(name, value)
        return content

    try:
        return json.loads(read_text(path), object_pairs_hook=first_of_each)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise ValueError(
            f"{where}: not complete JSON ({error.msg}); the file is truncated or damaged, fetch it again"
        ) from error


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str | None]]]:
    """Yields ("file, line n", values of `columns`) of every row of a csv file with a header.

    Raises:
        ValueError: when a column is missing or the file is not csv.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        missing = sorted(set(columns) - set(reader.fieldnames or ()))
        if missing:
            raise ValueError(f"{path}: the header lacks the column {', '.join(missing)}; expected {', '.join(columns)}")
        for row in reader:
            yield f"{path.name}, line {reader.line_num}", [row[column] for column in columns]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not csv ({error}); fetch the file again") from error
