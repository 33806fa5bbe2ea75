"""Vocabulary files: words with their vectors, ranked by how often they occur.

    published_pickle  the published code's glove.pkl: dict of w2id, id2vec and counter
    glove_text        "word v1 v2 ... vW" per line, as GloVe is distributed; also word2vec text with its header
    npz               entries words [V], vectors [V, W] and, optionally, counts [V]
    encoder           a sentence encoder (see `encoders`), which encodes each word of the annotations alone

The class of a word is its rank, from 1, among the `vocab_size` most frequent words; 0 is the padding. Words of equal
count rank in the order of first appearance. The counts are the pickle's or the npz file's own, else those of the
tokens of the annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pps_fast.arrays import open_npz
from pps_fast.machine import require_memory
from pps_fast.prepare.readers.encoders import open_encoder
from pps_fast.prepare.readers.glove import read_glove_text
from pps_fast.prepare.readers.plain_pickle import Disallowed, load_plain_pickle
from pps_fast.reading import FAILURES, Refused, cut, listed, reading, require_file

# bytes of memory that the objects of a pickle may take for each byte of it
_MEMORY_PER_BYTE = 8
PADDING_WORD = "<pad>"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Classes and their vectors.

    Attributes:
        words: V words; a word's class is its index; words[0] is the padding.
        vectors: [V, W] float32, row 0 zeros.
        num_available: words of the file that could have been classes, before the cut at vocab_size.
        counts_from: "file" or "annotations".
        notes: sentences for the report.
        encoder: NAME@REVISION of the encoder that made the vectors, or None.
    """

    words: list[str]
    vectors: np.ndarray
    num_available: int
    counts_from: str
    notes: tuple[str, ...] = ()
    encoder: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What a file holds: a vector per word, and its own counts if it has any; or the name of what made the vectors."""

    vectors: dict[str, np.ndarray]
    counts: Counter[str] | None
    encoder: str | None = None


def load_published_pickle(path: Path) -> dict[str, Any]:
    """Reads the published vocabulary pickle, of any protocol, without running anything that is in it.

    Returns:
        The dict as stored: "w2id" word -> row, "id2vec" list of vectors, "counter" Counter.

    Raises:
        ValueError: for a pickle that asks for anything but arrays and Counters, that is truncated, or of another form.
    """
    with reading(path):
        require_file(path)
        require_memory(_MEMORY_PER_BYTE * path.stat().st_size, "its content")
        try:
            content = load_plain_pickle(path.read_bytes())
        except Disallowed as error:
            what = f"refused: it asks for {cut(str(error), 80)}, and a vocabulary needs only numbers, words and arrays"
            raise ValueError(f"{path}: {what}; it is damaged or could run code, fetch it from its source") from error
        except (OSError, MemoryError, Refused):
            raise
        except FAILURES as error:
            raise ValueError(f"{path}: not a complete pickle; it is truncated or damaged, fetch it again") from error
        if not isinstance(content, dict) or not {"w2id", "id2vec", "counter"} <= set(content):
            raise ValueError(
                f"{path}: not a published vocabulary (a dict of w2id, id2vec and counter); name another file"
            )
        return content


def _published_pickle(path: Path, wanted: Counter[str]) -> _Table:
    content = load_published_pickle(path)
    rows, counter = content["w2id"], content["counter"]
    if not isinstance(counter, dict) or not all(isinstance(count, int) for count in counter.values()):
        raise ValueError(f"{path}: its counter does not count words; the file is damaged, fetch it again")
    with reading(path):
        try:
            stored = {_word(word): content["id2vec"][rows[word]] for word in counter}
            widths = [_width(vector) for vector in stored.values()]
            # one list may stand for many vectors
            require_memory(8 * sum(widths), "its vectors")
            vectors = {word: np.asarray(vector, dtype=np.float32) for word, vector in stored.items()}
        except Refused:
            raise
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: a counted word has no vector; the file is damaged, fetch it again") from error
    return _Table(vectors=vectors, counts=Counter({_word(word): count for word, count in counter.items()}))


def _width(vector: Any) -> int:
    is_plain = isinstance(vector, np.ndarray) or (
        isinstance(vector, list) and all(isinstance(value, int | float) for value in vector)
    )
    if not is_plain:
        raise TypeError("not a vector")
    return len(vector)


def _word(word: str | bytes) -> str:
    text = word.decode("utf-8") if isinstance(word, bytes) else word
    if not isinstance(text, str):
        raise TypeError("not a word")
    return text


def _npz(path: Path, wanted: Counter[str]) -> _Table:
    with reading(path), open_npz(path) as archive:
        if not {"words", "vectors"} <= set(archive.names):
            entries = listed(archive.names)
            raise ValueError(f"{path}: has the entries {entries}; expected words, vectors and optionally counts")
        entry = {name: archive.load(name) for name in ("words", "vectors", "counts") if name in archive.names}
        text, table, counts = entry["words"], entry["vectors"], entry.get("counts")
        if text.ndim != 1 or table.ndim != 2 or any(len(part) != len(text) for part in entry.values()):
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in entry.items())
            raise ValueError(f"{path}: shapes {shapes} do not fit together; expected [V], [V, W] and [V]")
        if text.dtype.kind not in "US" or table.dtype.kind not in "fiu" or (counts is not None and counts.ndim != 1):
            raise ValueError(f"{path}: words are {text.dtype}, vectors {table.dtype}; expected texts and numbers")
        if counts is not None and (counts.dtype.kind not in "fiu" or not np.isfinite(counts).all()):
            raise ValueError(f"{path}: counts are {counts.dtype}, not all finite numbers; correct them")
        words = [_word(word) for word in text.tolist()]
    if len(set(words)) != len(words):
        twice = Counter(words).most_common(1)[0][0]
        raise ValueError(f"{path}: the word {cut(twice, 60)!r} occurs twice; keep one of its rows")
    return _Table(
        vectors={word: np.asarray(row, dtype=np.float32) for word, row in zip(words, table, strict=True)},
        counts=None if counts is None else Counter(dict(zip(words, counts.tolist(), strict=True))),
    )


def _glove_text(path: Path, wanted: Counter[str]) -> _Table:
    return _Table(vectors=read_glove_text(path, wanted), counts=None)


def _encoder(path: Path, wanted: Counter[str]) -> _Table:
    encoder, words = open_encoder(str(path)), list(wanted)
    return _Table(vectors=dict(zip(words, encoder.encode(words), strict=True)), counts=None, encoder=encoder.name)


def _lowered(table: _Table) -> tuple[_Table, tuple[str, ...]]:
    """Returns the table with lower-case words, as sentences have them, and what to tell about that.

    The vector of a word in several spellings is that of the lower-case one, else of the first; counts are added.
    """
    changed = [word for word in table.vectors if word != word.lower()]
    if not changed:
        return table, ()
    vectors: dict[str, np.ndarray] = {}
    for word, vector in table.vectors.items():
        # the place of the first spelling, the vector of the lower-case one
        if word == word.lower() or word.lower() not in vectors:
            vectors[word.lower()] = table.vectors.get(word.lower(), vector)
    counts = None
    if table.counts is not None:
        counts = Counter[str]()
        for word, count in table.counts.items():
            counts[word.lower()] += count
    merged = len(table.vectors) - len(vectors)
    note = f"{len(changed):,} words with capitals matched in lower case"
    return _Table(vectors=vectors, counts=counts), (
        note + (f", {merged:,} of them had another spelling" if merged else ""),
    )


VOCABULARY_READERS: dict[str, Callable[[Path, Counter[str]], _Table]] = {
    "published_pickle": _published_pickle,
    "glove_text": _glove_text,
    "npz": _npz,
    "encoder": _encoder,
}


def detect_vocabulary_format(path: Path) -> str:
    """Names the format of a vocabulary file from its extension; a folder is one of an encoder.

    Raises:
        ValueError: for an unknown extension.
    """
    if (path / "config.json").is_file():
        return "encoder"
    known = {".pkl": "published_pickle", ".pickle": "published_pickle", ".txt": "glove_text", ".npz": "npz"}
    if path.suffix.lower() not in known:
        listed = ", ".join(VOCABULARY_READERS)
        raise ValueError(f"{path}: the name does not tell its format; name it with --vocabulary-format: {listed}")
    return known[path.suffix.lower()]


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
    read = VOCABULARY_READERS[file_format or detect_vocabulary_format(path)](path, token_counts)
    table, notes = _lowered(read)
    counts = table.counts
    if counts is None:
        counts = Counter({word: count for word, count in token_counts.items() if word in table.vectors})
    ranked = [word for word, _ in counts.most_common(vocab_size) if word != PADDING_WORD]
    return Vocabulary(
        words=[PADDING_WORD, *ranked],
        vectors=_stack(ranked, table.vectors, path),
        num_available=len(counts),
        counts_from="annotations" if table.counts is None else "file",
        notes=notes,
        encoder=read.encoder,
    )


def _stack(ranked: list[str], vectors: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """Returns the [1 + words, W] float32 table with its row of zeros for the padding."""
    if not ranked:
        raise ValueError(f"{path}: has none of the words of the annotations; name another vocabulary")
    shapes = sorted({vectors[word].shape for word in ranked})
    if len(shapes) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"{path}: vectors have the shapes {listed(shapes)}; expected one width for all words")
    require_memory(8 * (1 + len(ranked)) * shapes[0][0], f"{path}: the table of vectors")
    table = np.stack([np.zeros(shapes[0], dtype=np.float32), *(vectors[word] for word in ranked)])
    bad = ~np.isfinite(table).all(axis=1)
    if bad.any():
        word = ranked[int(bad.argmax()) - 1]
        raise ValueError(f"{path}: the vector of {cut(word, 60)!r} has NaN or infinite values; fetch the file again")
    return table
