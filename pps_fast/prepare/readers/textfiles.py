"""Text files of other people, read whole, with errors that name the file and what to do.

Read are UTF-8, with or without a byte order mark, and UTF-16 and UTF-32 with one, as editors and spreadsheets write
them; line ends of every system; csv divided by commas, semicolons or tabs.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pps_fast.machine import require_memory
from pps_fast.prepare.readers.problems import Problems
from pps_fast.reading import Refused, reading, require_file

# the longer marks first, because that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
# bytes of memory that the objects of a text file may take for each byte of it
_MEMORY_PER_BYTE = 8
_DELIMITERS = ",;\t"


def read_text(path: Path) -> str:
    """Returns the text of a file, line ends as "\\n".

    Raises:
        ValueError: when there is no such file or it is not text.
    """
    with reading(path):
        require_file(path)
        require_memory(_MEMORY_PER_BYTE * path.stat().st_size, "its text")
        return decode(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes) -> str:
    """Returns bytes as text, by their byte order mark, else as UTF-8.

    Raises:
        Refused: when they are not text.
    """
    encoding, name = next(((code, name) for mark, code, name in _MARKS if data.startswith(mark)), ("utf-8", "UTF-8"))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        # from the whole file's beginning, also where the mark was left out of the count
        place = error.start + (3 if encoding == "utf-8-sig" else 0)
        raise Refused(f"not text (byte {place} is not {name}); name a text file or save it as UTF-8") from error
    if "\0" in text:
        raise Refused("not text (it holds NUL bytes, as UTF-16 without a byte order mark does); save it as UTF-8")
    return text


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields ("file, line n", line) of every line that is not blank, without blanks at its end."""
    # str.splitlines would also cut at separators that may stand inside a sentence
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path.name}, line {number}", line.rstrip()


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

    text = read_text(path)
    with reading(path):
        try:
            return json.loads(text, object_pairs_hook=first_of_each)
        except json.JSONDecodeError as error:
            if _is_json_lines(text):
                what = "JSON lines, one record a line, not one JSON value"
                raise Refused(f"{what}; rename it to .jsonl or pass --annotation-format qvhighlights_jsonl") from error
            where = f"{path}, line {error.lineno}, column {error.colno}"
            raise ValueError(
                f"{where}: not complete JSON ({error.msg}); the file is truncated or damaged, fetch it again"
            ) from error


def _is_json_lines(text: str) -> bool:
    """Returns whether each of the first two lines that are not blank is an object."""
    lines = [line for line in text.split("\n") if line.strip()][:2]
    try:
        return len(lines) == 2 and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def read_csv(
    path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[str, list[str | None]]]:
    """Yields ("file, line n", values of the columns) of every row of a csv file with a header.

    The header tells what divides the columns: a comma, a semicolon or a tab. Blanks around its names and capitals in
    them do not count.

    Args:
        path: the file.
        columns: that it must have.
        optional: further columns, None in a file without them.

    Raises:
        ValueError: when a column is missing or the file is not csv.
    """
    text = read_text(path)
    header = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header.count))
    try:
        asked = {name.lower(): name for name in columns + optional}
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = [asked.get(name.lower(), name) for name in names]
        missing = sorted(set(columns) - set(reader.fieldnames))
        if missing:
            raise ValueError(f"{path}: the header lacks the column {', '.join(missing)}; expected {', '.join(columns)}")
        for row in reader:
            yield f"{path.name}, line {reader.line_num}", [row.get(column) for column in columns + optional]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not csv ({error}); fetch the file again") from error
