"""Vocabulary files: words with their vectors, ranked by how often they occur.

    published_pickle  the published code's glove.pkl: dict of w2id, id2vec and counter
    glove_text        "word v1 v2 ... vW" per line, as GloVe is distributed; also word2vec text with its header
    npz               entries words [V], vectors [V, W] and, optionally, counts [V]

The class of a word is its rank, from 1, among the `vocab_size` most frequent words; 0 is the padding. Words of equal
count rank in the order of first appearance. The counts are the pickle's or the npz file's own, else those of the
tokens of the annotations.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PADDING_WORD = "<pad>"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Classes and their vectors.

    Attributes:
        words: V words; a word's class is its index; words[0] is the padding.
        vectors: [V, W] float32, row 0 zeros.
        num_available: words of the file that could have been classes, before the cut at vocab_size.
        counts_from: "file" or "annotations".
    """

    words: list[str]
    vectors: np.ndarray
    num_available: int
    counts_from: str


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What a file holds: a vector per word, and its own counts if it has any."""

    vectors: dict[str, np.ndarray]
    counts: Counter[str] | None


def _numeric_dtype(descr: str, align: object = False, copy: object = False) -> np.dtype:
    # old pickles pass 0 and 1, which new versions of numpy warn about; objects would be a way in for more pickles
    dtype = np.dtype(descr)
    if dtype.kind not in "fiu":
        raise _Refused(f"it asks for an array of {dtype}")
    return dtype


# numpy has renamed the module of this function; an array tells where it is now
_RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _numeric_dtype,
    ("collections", "Counter"): Counter,
}


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not on the list."""


class _AllowListUnpickler(pickle.Unpickler):
    """Reads pickles of plain containers, numpy arrays and Counters; anything else could run code and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


_BROKEN_PICKLE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def load_published_pickle(path: Path) -> dict[str, Any]:
    """Reads the published vocabulary pickle without running anything that is in it.

    Returns:
        The dict as stored: "w2id" word -> row, "id2vec" list of vectors, "counter" Counter.

    Raises:
        ValueError: for a pickle that asks for anything but arrays and Counters, that is truncated, or of another form.
    """
    data = _read_bytes(path)
    try:
        content = _AllowListUnpickler(io.BytesIO(data)).load()
    except _Refused as error:
        what = f"refused: {error}, and a vocabulary needs only numbers, words and numpy arrays"
        raise ValueError(f"{path}: {what}; it is damaged or could run code, fetch it from its source") from error
    except _BROKEN_PICKLE as error:
        raise ValueError(f"{path}: not a complete pickle; it is truncated or damaged, fetch it again") from error
    if not isinstance(content, dict) or not {"w2id", "id2vec", "counter"} <= set(content):
        raise ValueError(f"{path}: not a published vocabulary (a dict of w2id, id2vec and counter); name another file")
    return content


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    return path.read_bytes()


def _published_pickle(path: Path, wanted: Counter[str]) -> _Table:
    content = load_published_pickle(path)
    rows, counter = content["w2id"], content["counter"]
    if not isinstance(counter, dict) or not all(isinstance(count, int) for count in counter.values()):
        raise ValueError(f"{path}: its counter does not count words; the file is damaged, fetch it again")
    try:
        vectors = {word: np.asarray(content["id2vec"][rows[word]], dtype=np.float32) for word in counter}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a counted word has no vector; the file is damaged, fetch it again") from error
    return _Table(vectors=vectors, counts=Counter(counter))


def _glove_text(path: Path, wanted: Counter[str]) -> _Table:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    # bytes, because decoding every line of a file of gigabytes is most of the work
    missing = {word.encode(): word for word in wanted}
    vectors: dict[str, np.ndarray] = {}
    dim = 1
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                dim, is_header = _first_line_width(line, path)
                if is_header:
                    continue
            if line.count(b" ") < dim:
                what = f"fewer than {dim} numbers; the file is truncated or not GloVe text, fetch it again"
                raise ValueError(f"{path}, line {number}: {what}")
            if line[: line.index(b" ")] not in missing:
                continue
            values = line.split()
            # the largest GloVe has entries of several words, whose first word is not the entry
            word = missing.pop(b" ".join(values[:-dim]), None)
            if word is not None:
                vectors[word] = _parse_vector(values[-dim:], path, number)
    return _Table(vectors=vectors, counts=None)


def _first_line_width(line: bytes, path: Path) -> tuple[int, bool]:
    """Returns the width of the vectors, and whether the first line is a word2vec header (count and width)."""
    values = line.split()
    if len(values) == 2 and all(value.isdigit() for value in values):
        return int(values[1]), True
    if len(values) < 2:
        raise ValueError(f"{path}, line 1: expected a word and its numbers; name a file of GloVe text")
    return len(values) - 1, False


def _parse_vector(values: list[bytes], path: Path, number: int) -> np.ndarray:
    try:
        return np.array([float(value) for value in values], dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path}, line {number}: {error}; the file is damaged or not GloVe text, fetch it again"
        ) from error


def _npz(path: Path, wanted: Counter[str]) -> _Table:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    try:
        # opened here, because numpy leaves a damaged archive open
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a complete npz file of plain arrays; fetch it again") from error
    if not {"words", "vectors"} <= set(entries):
        raise ValueError(f"{path}: has the entries {', '.join(entries)}; expected words, vectors and optionally counts")
    words, table, counts = entries["words"].tolist(), entries["vectors"], entries.get("counts")
    if table.ndim != 2 or any(len(part) != len(words) for part in (table, counts) if part is not None):
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in entries.items())
        raise ValueError(f"{path}: shapes {shapes} do not fit together; expected [V], [V, W] and [V]")
    if len(set(words)) != len(words):
        twice = Counter(words).most_common(1)[0][0]
        raise ValueError(f"{path}: the word {twice!r} occurs twice; keep one of its rows")
    return _Table(
        vectors={str(word): np.asarray(row, dtype=np.float32) for word, row in zip(words, table, strict=True)},
        counts=None if counts is None else Counter(dict(zip(words, counts.tolist(), strict=True))),
    )


VOCABULARY_READERS: dict[str, Callable[[Path, Counter[str]], _Table]] = {
    "published_pickle": _published_pickle,
    "glove_text": _glove_text,
    "npz": _npz,
}


def detect_vocabulary_format(path: Path) -> str:
    """Names the format of a vocabulary file from its extension.

    Raises:
        ValueError: for an unknown extension.
    """
    known = {".pkl": "published_pickle", ".pickle": "published_pickle", ".txt": "glove_text", ".npz": "npz"}
    if path.suffix not in known:
        listed = ", ".join(VOCABULARY_READERS)
        raise ValueError(f"{path}: the name does not tell its format; name it with --vocabulary-format: {listed}")
    return known[path.suffix]


def read_vocabulary(
    path: Path, *, token_counts: Counter[str], vocab_size: int | None = None, file_format: str | None = None
) -> Vocabulary:
    """Reads the classes and vectors of a data set; see the top of this file for the formats and the ranking.

    Args:
        path: the file.
        token_counts: tokens of the annotations, in order of first appearance; used where the file has no counts.
        vocab_size: keep this many words at most; None keeps all that occur.
        file_format: key of VOCABULARY_READERS; None to detect it.

    Raises:
        ValueError: for a file that cannot be read, holds vectors of several widths or with NaN, or none of the words.
    """
    table = VOCABULARY_READERS[file_format or detect_vocabulary_format(path)](path, token_counts)
    counts = table.counts
    if counts is None:
        counts = Counter({word: count for word, count in token_counts.items() if word in table.vectors})
    ranked = [word for word, _ in counts.most_common(vocab_size) if word != PADDING_WORD]
    return Vocabulary(
        words=[PADDING_WORD, *ranked],
        vectors=_stack(ranked, table.vectors, path),
        num_available=len(counts),
        counts_from="annotations" if table.counts is None else "file",
    )


def _stack(ranked: list[str], vectors: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """Returns the [1 + words, W] float32 table with its row of zeros for the padding."""
    if not ranked:
        raise ValueError(f"{path}: has none of the words of the annotations; name another vocabulary")
    shapes = sorted({vectors[word].shape for word in ranked})
    if len(shapes) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"{path}: vectors have the shapes {shapes}; expected one width for all words")
    table = np.stack([np.zeros(shapes[0], dtype=np.float32), *(vectors[word] for word in ranked)])
    bad = ~np.isfinite(table).all(axis=1)
    if bad.any():
        word = ranked[int(bad.argmax()) - 1]
        raise ValueError(f"{path}: the vector of {word!r} has NaN or infinite values; fetch the file again")
    return table
