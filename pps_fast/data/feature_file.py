"""Features that stay in their packed file: what is asked for is read, and nothing is kept.

Values are read at their place in the file, and the file is not mapped into memory: pages of a mapping count as the
process's memory and against its limit of address space, and a read error or a file that was cut short would end the
process by a signal, where a read can say what happened.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pps_fast.reading import cause_of

# of the next rows, read at once where a whole array is gone through
_BLOCK_BYTES = 16 << 20


class FeatureFile:
    """An array [N, S, F] in a file, which is read by video: `features[3]`, `features[2:7]`, `features[indices]`.

    Args:
        path: an existing file; it stays open, so that another file of the same name changes nothing.
        offset: bytes before the first value.
        shape: of the array.
        dtype: of its values, which lie in the file in this order and without gaps.

    Raises:
        ValueError: where the file cannot be opened or ends before the array does; so do all methods that read.
    """

    ndim = 3

    def __init__(self, path: str | Path, offset: int, shape: tuple[int, int, int], dtype: Any) -> None:
        self.path, self.offset, self.shape, self.dtype = Path(path), offset, shape, np.dtype(dtype)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be opened: {cause_of(error)}") from error
        weakref.finalize(self, os.close, self._descriptor)
        self._row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        if os.fstat(self._descriptor).st_size < offset + self.nbytes:
            raise ValueError(f"{self.path}: truncated: its features are longer than the file; copy it again")

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return self.shape[0] * self._row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields [n, S, F] arrays of the next videos, together the whole array."""
        size = max(_BLOCK_BYTES // max(self._row_bytes, 1), 1)
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads one video [S, F], a slice of videos or videos by an array of their numbers [n, S, F]; as numpy does."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        # numpy's own rules: negative numbers, steps, refusal of what is outside
        every = range(len(self)) if isinstance(first, int | np.integer | slice) else np.arange(len(self))
        videos = np.asarray(every[first], dtype=np.int64)
        values = self.read(np.atleast_1d(videos))
        values = values.reshape(*np.shape(videos), *self.shape[1:])
        return values[(slice(None),) * np.ndim(videos) + tuple(rest)] if rest else values

    def read(self, videos: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Returns [n, S, F] the features of n videos.

        Args:
            videos: [n] integers, 0 to N - 1.
            out: contiguous array for the result, allocated where there is none.
        """
        values = np.empty((len(videos), *self.shape[1:]), self.dtype) if out is None else out
        room = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        if not len(videos):
            return values
        # videos that lie side by side are read at once
        starts = np.flatnonzero(np.diff(videos, prepend=-2) != 1)
        ends = np.append(starts[1:], len(videos))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self._read(int(videos[start]), room[start * self._row_bytes : end * self._row_bytes])
        return values

    def _read(self, video: int, room: memoryview) -> None:
        place = self.offset + video * self._row_bytes
        done = 0
        while done < len(room):
            try:
                count = os.preadv(self._descriptor, [room[done:]], place + done)
            except OSError as error:
                raise ValueError(f"{self.path}: features cannot be read: {cause_of(error)}") from error
            if count == 0:
                raise ValueError(f"{self.path}: truncated while it was read; copy it again")
            done += count


def features_in_place(path: Path, dataset: h5py.Dataset) -> FeatureFile:
    """Returns a data set of an HDF5 file as it lies there.

    Raises:
        ValueError: where it does not lie there whole and as it is in memory: compressed, in chunks, or of another order
            of bytes.
    """
    offset = dataset.id.get_offset()
    if dataset.chunks is not None or offset is None or dataset.dtype != dataset.dtype.newbyteorder("="):
        how = "in chunks or compressed" if dataset.chunks is not None else "empty or in another order of bytes"
        raise ValueError(
            f"{path}: data.residence = 'disk': its features are stored {how} and cannot be read in place; write the "
            "file with `python -m pps_fast.prepare`, or use --data.residence host"
        )
    return FeatureFile(path, offset, dataset.shape, dataset.dtype)


Features = np.ndarray | FeatureFile
"""[N, S, F] float16, in memory or in a file"""


def blocks_of(features: Features) -> Iterator[np.ndarray]:
    """Yields [n, S, F] arrays of the next videos, together all features, of which no copy is made in memory."""
    return iter((features,)) if isinstance(features, np.ndarray) else features.blocks()
