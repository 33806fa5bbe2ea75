"""Writes the packed file of a data set: features video by video, then all else; all of it or nothing.

The file is HDF5 of version 2: a data set per field of `PreparedData`, and the sha256 of each part of the content. Of
the features one video at a time is in memory, and their sha256 is computed while they are written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from pps_fast.data.identity import ArrayDigest, sample_parts
from pps_fast.data.record import ARRAYS, FEATURE_DTYPE, OPTIONAL_ARRAYS, PreparedData, PreparedSamples
from pps_fast.files import FullDiskError, naming_full_disk, replacing
from pps_fast.hdf5 import new_hdf5, open_hdf5, reserve, size_of
from pps_fast.machine import require_space
from pps_fast.reading import cause_of

FORMAT = "pps_fast.prepared"
VERSION = 2

STRINGS = ("video_ids", "words", "sentences", "split")
OPTIONAL_STRINGS = ("kind",)
"""texts that a file may lack"""
JSON = ("provenance", "query_id", "recipe")
"""kept as one text of JSON each"""


def check_output(path: Path) -> None:
    """Checks, before the work is done, that a prepared file may be written to a path.

    Raises:
        ValueError: when the folder does not exist, or when `path` is there and is not a prepared file itself.
    """
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; create it or choose another output")
    if path.is_dir():
        raise ValueError(f"{path}: a folder; name a file for the output")
    if path.exists() and not _has_mark(path):
        raise ValueError(f"{path}: exists and is not a prepared file; move it away or choose another output")


def _has_mark(path: Path) -> bool:
    try:
        with open_hdf5(path) as file:
            return isinstance(mark := file.attrs.get("format"), str) and mark == FORMAT
    except (ValueError, OSError, RuntimeError):
        return False


def write_prepared(path: str | Path, data: PreparedData) -> None:
    """Writes `data` to `path` as HDF5: all of it or nothing; the same data gives the same bytes.

    Raises:
        ValueError: as `check_output`, or when writing fails, for instance for want of space.
    """
    with Packing(Path(path)) as packed:
        packed.begin(data.features.shape[1:], data)
        for values in data.features:
            packed.add(values)
        packed.finish(data)


class Packing:
    """A packed file in the making: `begin`, `add` once for each video, `finish`, within a `with` block.

    The file appears when the block ends; where the block fails, what was written goes and an older file stays.

    Raises:
        ValueError: as `check_output`, or when writing fails, for instance for want of space.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack, self._open = ExitStack(), ExitStack()
        self._is_finished = False

    def __enter__(self) -> Packing:
        check_output(self.path)
        self._temporary = self._stack.enter_context(replacing(self.path))
        return self

    def begin(self, shape: tuple[int, ...], samples: PreparedSamples, room: int = 0) -> None:
        """Starts the file, or starts it over, after its space was reserved.

        Args:
            shape: segments and width of the features of a video.
            samples: what `finish` will write besides, as far as it is known.
            room: bytes for what is not known yet; where these are too few, `finish` reserves more.
        """
        whole = (len(samples.video_ids), *shape)
        size = math.prod(whole) * np.dtype(FEATURE_DTYPE).itemsize
        size += _size_beside(*_fields_of(samples)) + room
        with _writing(self.path):
            self._open.close()
            require_space(self.path, size)
            self._file = self._open.enter_context(new_hdf5(self._temporary, size))
            self._file.attrs["format"] = FORMAT
            self._file.attrs["version"] = VERSION
            self._features = self._file.create_dataset("features", shape=whole, dtype=FEATURE_DTYPE)
        self._digest, self._num_added = ArrayDigest(FEATURE_DTYPE, whole), 0

    def add(self, values: np.ndarray) -> None:
        """Writes the features of the next video, [S, F] float16."""
        with _writing(self.path):
            self._features[self._num_added] = values
        self._digest.update(values)
        self._num_added += 1

    def finish(self, samples: PreparedSamples) -> None:
        """Writes all that is not features, and the sha256 of everything."""
        if self._num_added != len(samples.video_ids):
            raise ValueError(f"{self.path}: {self._num_added} videos packed of {len(samples.video_ids)}; add each once")
        arrays, texts = _fields_of(samples)
        content = {"features": self._digest.hexdigest(), **sample_parts(samples)}
        with _writing(self.path):
            reserve(self._temporary, self._features.nbytes + _size_beside(arrays, texts))
            for name, values in arrays.items():
                self._file.create_dataset(name, data=values)
            for name, text in texts.items():
                self._file.create_dataset(name, data=text, dtype=h5py.string_dtype())
            self._file.attrs["content"] = json.dumps(content, sort_keys=True)
            self._open.close()
        self._is_finished = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        unfinished = None
        if error is None and not self._is_finished:
            error = unfinished = ValueError(f"{self.path}: not written, because its packing was not finished")
            kind = ValueError
        with _writing(self.path):
            try:
                self._open.close()
            finally:
                self._stack.__exit__(kind, error, at)
        if unfinished is not None:
            raise unfinished


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what fails in the block into a ValueError that names the file."""
    try:
        with naming_full_disk(path):
            yield
    except FullDiskError as error:
        # its message names the file, the reason and the remedy
        raise ValueError(str(error)) from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {cause_of(error)}") from error


def _fields_of(data: PreparedSamples) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns arrays and texts of a data set by their names in the file; records as one text of JSON each."""
    names = (*ARRAYS, *OPTIONAL_ARRAYS, *STRINGS, *OPTIONAL_STRINGS, *JSON)
    fields = {name: value for name in names if (value := getattr(data, name)) is not None}
    arrays = {name: fields[name] for name in (*ARRAYS, *OPTIONAL_ARRAYS) if name in fields}
    texts: dict[str, Any] = {
        name: [str(text) for text in fields[name]] for name in (*STRINGS, *OPTIONAL_STRINGS) if name in fields
    }
    # data sets and no attributes: HDF5 limits attributes to 64 KiB
    texts.update({name: json.dumps(fields[name], sort_keys=True) for name in JSON if name in fields})
    return arrays, texts


def _size_beside(arrays: dict[str, np.ndarray], texts: dict[str, Any]) -> int:
    return size_of(arrays.values(), [[text] if isinstance(text, str) else text for text in texts.values()])
