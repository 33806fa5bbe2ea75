"""Vectors of whole sentences, made by an encoder: readers of the field's forms.

    rows     an npz or HDF5 file with `vectors` [R, n] and, for its rows, `query_id` or `sentences`
    entries  an npz or HDF5 file with an entry for each query id: an array, or an HDF5 group of arrays
    folder   folder/{query id}.npz or .npy, also folder/qid{query id}.npz

The vector of a query is `vectors`, `pooler_output`, or the mean over the tokens of `last_hidden_state`, the first of
these that is there, or what --sentence-key names.

Letters: R rows of a file, n width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from pps_fast.arrays import load_npy, open_npz
from pps_fast.hdf5 import inside, open_hdf5, read_dataset
from pps_fast.reading import FAILURES, Refused, cause_of, listed, reading

ARRAYS = ("vectors", "pooler_output", "last_hidden_state")
"""arrays that may hold a query's vector, the preferred one first"""
ROW_NAMES = ("query_id", "sentences")
"""what may name the rows of a file, the preferred one first"""
_ENCODER = "encoder"


@dataclass(frozen=True, kw_only=True)
class SentenceReader:
    """Vectors of sentences behind one interface.

    Attributes:
        name: file or folder name, for messages.
        form: "rows", "entries" or "folder".
        by: what names a vector: "query_id" or "sentences".
        encoder: what the file says of the encoder, or None.
        locate: query id or sentence -> whatever `load` takes.
        load: takes what `locate` gives, returns an array of one axis, or of two with the tokens first.
    """

    name: str
    form: str
    by: str
    encoder: str | None
    locate: dict[str, Any]
    load: Callable[[Any], np.ndarray]

    def read(self, query: str) -> np.ndarray:
        """Returns the [n] float32 vector of a query, finite and not all zero.

        Raises:
            Refused: where it cannot be used; the message says why, without naming the file or the query.
            KeyError: for a query without a vector.
        """
        location = self.locate[query]
        try:
            return _pooled(self.load(location))
        except Refused:
            raise
        except FAILURES as error:
            raise Refused(cause_of(error)) from error


def _pooled(array: np.ndarray) -> np.ndarray:
    """Returns the mean over all axes but the last, [n] float32."""
    shape = list(array.shape)
    if array.dtype.kind not in "fiu" or not 1 <= array.ndim <= 3 or array.size == 0:
        raise Refused(f"has shape {shape} and dtype {array.dtype}, expected [width] or [tokens, width] of numbers")
    if array.ndim == 3 and shape[0] != 1:
        raise Refused(f"has shape {shape}, expected [width] or [tokens, width]")
    if not np.isfinite(array).all():
        raise Refused(f"has {int((~np.isfinite(array)).sum())} NaN or infinite values")
    with np.errstate(over="ignore"):
        vector = array.reshape(-1, shape[-1]).mean(axis=0, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise Refused("has values beyond float32; scale it down")
    if not vector.any():
        raise Refused("has only zeros, which are no direction; encode it again")
    return vector


class _Arrays(Protocol):
    """Named arrays of an npz or HDF5 file."""

    @property
    def names(self) -> Collection[str]: ...

    def load(self, name: str) -> np.ndarray: ...


class _Hdf5:
    """The data sets of an HDF5 file or group as named arrays; its attributes and texts as well."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group
        self.names = list(group)

    def load(self, name: str) -> np.ndarray:
        array = read_dataset(self._group, name)
        is_text = h5py.check_string_dtype(self._group[name].dtype) is not None
        return np.array(self._group[name].asstr()[()]) if is_text else array


@contextmanager
def open_sentences(
    path: Path, wanted: str | None, queries: Iterable[str | int | None] | None
) -> Iterator[SentenceReader]:
    """Opens vectors of sentences for the `with` block; see the top of this file for the forms.

    Args:
        path: npz or HDF5 file, or folder with a file for each query.
        wanted: array that holds a query's vector; None for the first of `ARRAYS` that is there.
        queries: ids of the annotated queries, or None where these have none: sentences then name the vectors.

    Raises:
        ValueError: for a file or folder that cannot be used at all; the message names it.
    """
    with ExitStack() as stack:
        with reading(path):
            if path.is_dir():
                reader = _folder(path, wanted)
            elif path.is_file() and h5py.is_hdf5(path):
                file = stack.enter_context(open_hdf5(path))
                reader = _hdf5(path, file, wanted, queries)
            else:
                archive = stack.enter_context(open_npz(path))
                reader = _rows_or_entries(path, archive, wanted, queries)
            if reader.by == "query_id" and queries is None:
                raise Refused(
                    "names its vectors by query id, and the annotations have none; give a npz file with `vectors` and, "
                    "row by row, `sentences`"
                )
        yield reader


def _folder(path: Path, wanted: str | None) -> SentenceReader:
    files = {file.stem: file for file in sorted(path.iterdir()) if file.suffix in (".npz", ".npy")}
    if not files:
        raise Refused("the folder holds no .npz or .npy files; name the one with a file for each query")

    def load(file: Path) -> np.ndarray:
        if file.suffix == ".npy":
            return load_npy(file)
        with open_npz(file) as archive:
            return archive.load(_array_of(archive.names, wanted))

    return SentenceReader(
        name=path.name, form="folder", by="query_id", encoder=None, locate=_by_query(files), load=load
    )


def _hdf5(
    path: Path, file: h5py.File, wanted: str | None, queries: Iterable[str | int | None] | None
) -> SentenceReader:
    arrays = _Hdf5(file)
    attribute = file.attrs.get(_ENCODER)
    reader = _rows_or_entries(path, arrays, wanted, queries, encoder=None if attribute is None else str(attribute))
    if reader.form == "rows":
        return reader

    def load(name: str) -> np.ndarray:
        entry = inside(file, name)
        if not isinstance(entry, h5py.Group):
            return arrays.load(name)
        return read_dataset(entry, _array_of(list(entry), wanted))

    return SentenceReader(
        name=path.name, form="entries", by="query_id", encoder=reader.encoder, locate=reader.locate, load=load
    )


def _rows_or_entries(
    path: Path,
    arrays: _Arrays,
    wanted: str | None,
    queries: Iterable[str | int | None] | None,
    encoder: str | None = None,
) -> SentenceReader:
    if _ENCODER in arrays.names:
        encoder = str(arrays.load(_ENCODER)[()])
    row_names = [name for name in ROW_NAMES if name in arrays.names and (name != "query_id" or queries is not None)]
    if not row_names:
        if set(ARRAYS) & set(arrays.names):
            expected = " or ".join(f"`{name}`" for name in ROW_NAMES)
            raise Refused(f"holds {listed(arrays.names)} and not which query a row is of; add {expected}, row by row")
        entries = {name: name for name in arrays.names if name != _ENCODER}
        return SentenceReader(
            name=path.name,
            form="entries",
            by="query_id",
            encoder=encoder,
            locate=_by_query(entries),
            load=arrays.load,
        )
    by = row_names[0]
    vectors, names = arrays.load(_array_of(arrays.names, wanted)), arrays.load(by)
    if names.ndim != 1 or vectors.ndim != 2 or len(names) != len(vectors):
        shapes = f"vectors of shape {list(vectors.shape)} and {by} of shape {list(names.shape)}"
        raise Refused(f"has {shapes}; store a row of vectors, [rows, width], for each")
    return SentenceReader(
        name=path.name, form="rows", by=by, encoder=encoder, locate=_rows(names, by), load=lambda row: vectors[row]
    )


def _rows(names: np.ndarray, by: str) -> dict[str, int]:
    """Returns the row of each query or sentence; of a sentence that occurs several times, the first."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names.tolist()):
        text = (name.decode() if isinstance(name, bytes) else str(name)).strip()
        if rows.setdefault(text, row) != row and by == "query_id":
            raise Refused(f"has the query id {text!r} in the rows {rows[text]} and {row}; keep one of them")
    return rows


def _by_query(names: dict[str, Any]) -> dict[str, Any]:
    """Returns locations by query id, where a name may be the id or the id with `qid` before it."""
    by_query = {name.removeprefix("qid"): where for name, where in names.items()}
    return by_query | names


def _array_of(names: Collection[str], wanted: str | None) -> str:
    chosen = [name for name in ((wanted,) if wanted is not None else ARRAYS) if name in names]
    if not chosen:
        expected = repr(wanted) if wanted is not None else " or ".join(ARRAYS)
        raise Refused(f"has no array {expected} (it has {listed(names)}); name one with --sentence-key")
    return chosen[0]
