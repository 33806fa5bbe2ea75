"""Word vectors as GloVe and word2vec distribute them: a line of text for each word.

"word v1 v2 ... vW", divided by blanks or tabs; also with the header of word2vec text (number of words and width).
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pps_fast.reading import Refused, cut, reading, require_file

# the widest vectors of the field have some thousand numbers
_LONGEST_LINE = 1 << 22


def read_glove_text(path: Path, wanted: Counter[str]) -> dict[str, np.ndarray]:
    """Reads the vectors of the words that are wanted, or of their spellings with capitals where there is none.

    The file is streamed. Of a word that stands in several lines, the first counts.

    Returns:
        word -> [W] float32; spellings with capitals as they are in the file.

    Raises:
        ValueError: for a file that is not such text; the message names file and line.
    """
    # bytes, because decoding every line of a file of gigabytes is most of the work
    missing = {word.encode(): word for word in wanted}
    vectors: dict[str, np.ndarray] = {}
    capitals: dict[str, tuple[str, np.ndarray]] = {}
    dim = 1
    with reading(path):
        for number, line in _lines(path):
            if number == 1:
                dim, is_header = _first_line_width(line, path)
                if is_header:
                    continue
            if line.count(b" ") < dim:
                what = f"fewer than {dim} numbers; the file is truncated or not GloVe text, fetch it again"
                raise ValueError(f"{path}, line {number}: {what}")
            first = line[: line.index(b" ")]
            if first not in missing and _lower(first) not in missing:
                continue
            values = line.split()
            # the largest GloVe has entries of several words, whose first word is not the entry
            entry = b" ".join(values[:-dim])
            word = missing.pop(entry, None)
            if word is not None:
                vectors[word] = _parse_vector(values[-dim:], path, number)
            elif (lowered := missing.get(_lower(entry))) and lowered not in capitals:
                capitals[lowered] = (entry.decode(), _parse_vector(values[-dim:], path, number))
    unmatched = set(missing.values())
    return vectors | dict(spelling for word, spelling in capitals.items() if word in unmatched)


def _lower(word: bytes) -> bytes:
    return word.lower() if word.isascii() else word.decode("utf-8", "replace").lower().encode()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields number and content of the lines that are not blank, divided by single blanks where by tabs."""
    require_file(path)
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            if len(line) == _LONGEST_LINE:
                raise Refused(f"line {number} is longer than {_LONGEST_LINE:,} bytes, so this is not GloVe text")
            if number == 1:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise Refused("is text in UTF-16; save it as UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            if b"\t" in line:
                line = line.replace(b"\t", b" ")
            if line.strip():
                yield number, line


def _first_line_width(line: bytes, path: Path) -> tuple[int, bool]:
    """Returns the width of the vectors, and whether the first line is a word2vec header (count and width)."""
    values = line.split()
    if len(values) == 2 and all(value.isdigit() for value in values):
        width = int(values[1][:10])
        if not 1 <= width <= _LONGEST_LINE:
            raise ValueError(f"{path}, line 1: vectors of width {width}; fetch the file again")
        return width, True
    if len(values) < 2:
        raise ValueError(f"{path}, line 1: expected a word and its numbers; name a file of GloVe text")
    return len(values) - 1, False


def _parse_vector(values: list[bytes], path: Path, number: int) -> np.ndarray:
    try:
        # what float32 cannot hold becomes infinite, and is refused with its word
        with np.errstate(over="ignore"):
            return np.array([float(value) for value in values], dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path}, line {number}: {cut(str(error), 160)}; the file is damaged or not GloVe text, fetch it again"
        ) from error
