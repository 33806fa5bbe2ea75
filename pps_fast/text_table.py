"""Tables of text cells: as Markdown, and as plain text that fits a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]
"""a header and rows of as many cells; the first column is text, the others are numbers"""

_GAP = "  "


def terminal_columns() -> int | None:
    """Returns the width of the terminal that stdout is, in characters; None where it is a file or a pipe."""
    # None where it was closed before the program began
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else None


def markdown_table(rows: Rows) -> list[str]:
    """Returns the lines of a Markdown table, numbers aligned right."""
    header, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return [header, "| --- |" + " ---: |" * (len(rows[0]) - 1), *body]


def plain_table(rows: Rows, columns: int | None = None) -> list[str]:
    """Returns the lines of a table of plain text, with a rule below the header.

    Args:
        columns: most characters of a line. A wider table becomes several tables, one below the other with an empty
            line between them, each with the first column. A single column that is too wide is not cut.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for part in _parts(widths, columns):
        lines += [""] if lines else []
        for number, row in enumerate(rows):
            cells = [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in part)]
            lines.append(_GAP.join(cells).rstrip())
            if number == 0:
                lines.append(_GAP.join("-" * widths[column] for column in (0, *part)))
    return lines


def _parts(widths: list[int], columns: int | None) -> list[list[int]]:
    """Divides the columns after the first into groups that fit beside it."""
    parts: list[list[int]] = [[]]
    used = widths[0]
    for column in range(1, len(widths)):
        if columns is not None and parts[-1] and used + len(_GAP) + widths[column] > columns:
            parts.append([])
            used = widths[0]
        parts[-1].append(column)
        used += len(_GAP) + widths[column]
    return parts


def wrapped(sentence: str, columns: int | None) -> str:
    """Returns a sentence broken into lines of at most so many characters; None leaves it one line."""
    return sentence if columns is None else textwrap.fill(sentence, columns, break_on_hyphens=False)
