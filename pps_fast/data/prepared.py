"""Reads the one packed file of a prepared data set, which `packing` writes.

Everything after `python -m pps_fast.prepare` reads this file and nothing else. The sha256 of each part of its content
is verified when the file is read. Files of version 1 had one moment per sample and no sha256; they are still read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from pps_fast.config import Residence
from pps_fast.data.feature_file import FeatureFile, features_in_place
from pps_fast.data.identity import sample_parts
from pps_fast.data.packing import FORMAT as FORMAT
from pps_fast.data.packing import JSON, OPTIONAL_STRINGS, STRINGS
from pps_fast.data.packing import VERSION as VERSION
from pps_fast.data.packing import check_output as check_output
from pps_fast.data.packing import write_prepared as write_prepared
from pps_fast.data.record import ARRAYS, OPTIONAL_ARRAYS, PreparedSamples, feature_recipe
from pps_fast.data.record import SPLITS as SPLITS
from pps_fast.data.record import PreparedData as PreparedData
from pps_fast.data.residence import fits
from pps_fast.files import Note
from pps_fast.hdf5 import open_hdf5, plain_dataset, read_dataset
from pps_fast.machine import free_memory, require_memory
from pps_fast.reading import Refused, reading
from pps_fast.types import FeatureSizes

Samples = TypeVar("Samples", bound=PreparedSamples)

_REMEDY = "write it with `python -m pps_fast.prepare`"


def read_prepared(path: str | Path, residence: Residence = "auto", *, copies: int = 1) -> PreparedData:
    """Reads a packed file and verifies its content.

    Args:
        residence: 'device' and 'host' read the features into memory; 'disk' leaves them in their file, which is read
            once for the verification; 'auto' does so where they need more than half of the free memory.
        copies: with 'auto', how many processes of this machine will read them into memory; with 0 none does where they
            can be read in the file.
    Raises:
        ValueError: for a missing, foreign, truncated, damaged or newer file; the message says which and what to do.
            With 'disk' also for features that are compressed or in chunks.
    Warns:
        Note: for a file of version 1, which has no sha256 to verify.
    """
    path = Path(path)
    with _opened(path) as (file, version):
        in_place = _features_in_place(path, file, residence, copies)
        arrays = tuple(ARRAYS) if in_place is not None else (*ARRAYS, "features")
        values = _read_fields(file, version, path.stat().st_size, arrays)
        values |= {} if in_place is None else {"features": in_place}
        written = _content(file, version)
    data = _built(path, PreparedData, values)
    _verify(path, data.content, written)
    return data


def read_samples(path: str | Path) -> PreparedSamples:
    """Reads all but the features of a packed file, which are nearly all of it, and verifies what it has read.

    Raises, warns: as `read_prepared`.
    """
    path = Path(path)
    with _opened(path) as (file, version):
        values = _read_fields(file, version, path.stat().st_size, tuple(ARRAYS))
        written = _content(file, version)
    data = _built(path, PreparedSamples, values)
    _verify(path, sample_parts(data), written)
    return data


def read_sizes(path: str | Path) -> tuple[FeatureSizes, int]:
    """Returns the sizes that a model needs for a packed file, and its number of word columns, without reading values.

    Raises:
        ValueError: as `read_prepared`.
    """
    with _opened(Path(path)) as (file, _):
        shapes = {name: plain_dataset(file, name).shape for name in ("features", "word_vectors", "word_ids")}
        _, num_segments, frame_dim = shapes["features"]
        vocab_size, word_dim = shapes["word_vectors"]
        has_sentences = "sentence_vectors" in file
        sizes = FeatureSizes(
            frame_dim=frame_dim,
            word_dim=word_dim,
            vocab_size=vocab_size,
            num_segments=num_segments,
            sentence_dim=plain_dataset(file, "sentence_vectors").shape[1] if has_sentences else 0,
        )
        return sizes, shapes["word_ids"][1]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, int]]:
    """Yields an open packed file and its version; failures within the block are told as `reading` does."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {_REMEDY}")
    with reading(path), open_hdf5(path, needs_texts=True) as file:
        mark, version = _plain(file.attrs.get("format")), _plain(file.attrs.get("version"))
        if mark != FORMAT:
            raise ValueError(f"{path}: an HDF5 file, but not one of prepared data (no mark {FORMAT!r}); {_REMEDY}")
        if version not in (1, VERSION):
            raise ValueError(
                f"{path}: prepared data of version {version}, this pps_fast reads 1 and {VERSION}; {_REMEDY} again"
            )
        yield file, int(version)


def _features_in_place(path: Path, file: h5py.File, residence: Residence, copies: int) -> FeatureFile | None:
    """Returns the features where they lie in the file, None where they are to be read into memory."""
    dataset = plain_dataset(file, "features")
    if residence == "auto":
        is_plain = dataset.chunks is None and len(dataset.shape) == 3
        is_read = (copies > 0 and fits(copies * dataset.nbytes, free_memory())) or not is_plain
        return None if is_read else features_in_place(path, dataset)
    return features_in_place(path, dataset) if residence == "disk" else None


def _plain(attribute: Any) -> str | int | None:
    """Returns an attribute that is a text or a whole number, else None."""
    if isinstance(attribute, str):
        return attribute
    return int(attribute) if isinstance(attribute, int | np.integer) and not isinstance(attribute, bool) else None


def _content(file: h5py.File, version: int) -> dict[str, str] | None:
    """Returns the sha256 that were written, None in a file of version 1."""
    if version == 1:
        return None
    content = json.loads(file.attrs["content"])
    if not isinstance(content, dict):
        raise Refused("its attribute content is no object; the file is damaged, copy it again")
    return content


def _built(path: Path, kind: type[Samples], values: dict[str, Any]) -> Samples:
    """Returns the data set of a file's fields."""
    try:
        return kind(**values)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _verify(path: Path, content: dict[str, str], written: dict[str, str] | None) -> None:
    """Compares the sha256 of what was read with those that were written."""
    if written is None:
        warnings.warn(
            f"{path}: prepared by an older pps_fast (version 1), so that damage cannot be detected; "
            "prepare it again to have its content verified",
            Note,
            stacklevel=3,
        )
        return
    changed = sorted(name for name in content if content[name] != written.get(name))
    if changed:
        raise ValueError(
            f"{path}: damaged: {', '.join(changed)} are not what was written (sha256); copy the file again or {_REMEDY}"
        )


def _read_fields(file: h5py.File, version: int, file_size: int, arrays: tuple[str, ...]) -> dict[str, Any]:
    """Returns the fields of `PreparedData` in a file; a file of version 1 has moment_s for the windows."""
    windows = {"window_s", "window_sample"} if version == 1 else set()
    names = [name for name in arrays if name not in windows]
    names += [name for name in OPTIONAL_ARRAYS if name in file]
    # before anything is allocated: a flipped bit in a shape can ask for any amount of memory
    strings = [*STRINGS, *(name for name in OPTIONAL_STRINGS if name in file)]
    stored = [plain_dataset(file, name).nbytes for name in [*names, *(["moment_s"] if windows else [])]]
    if max(*stored, *(plain_dataset(file, name).nbytes for name in strings)) > file_size:
        raise Refused("a data set is larger than its file, which is damaged; copy it again")
    require_memory(sum(stored), "what is read of it")
    values: dict[str, Any] = {name: read_dataset(file, name) for name in names}
    values.update({name: plain_dataset(file, name).asstr()[()].tolist() for name in strings})
    for name in ("split", *OPTIONAL_STRINGS):
        if name in values:
            values[name] = np.array(values[name])
    values.update(
        {
            name: json.loads(plain_dataset(file, name).asstr()[()])
            for name in JSON
            if name in file or name == "provenance"
        }
    )
    if version == 1:
        values["window_s"] = read_dataset(file, "moment_s")
        values["window_sample"] = np.arange(len(values["window_s"]))
        source = values["provenance"].get("sources", {}).get("features")
        if source is not None:
            values["recipe"] = feature_recipe([source], plain_dataset(file, "features").shape[1])
    return values
