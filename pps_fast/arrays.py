"""Files of plain arrays, npy and npz, read without pickles and only after their sizes were checked."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from pps_fast.machine import require_memory, size_text
from pps_fast.reading import Refused, listed, require_file

# deflate packs at most 1,032 bytes into one; more than that is no archive but a bomb
_MAX_PACKING = 1100
_ALWAYS_READ = 64 << 20
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    # differs from 2 in the encoding of names alone
    (3, 0): np.lib.format.read_array_header_2_0,
}


def load_npy(path: Path) -> np.ndarray:
    """Returns the array of a npy file.

    Raises:
        Refused: for Python objects, or a shape that the file does not hold or the memory has no room for.
        OSError, ValueError, ...: what numpy raises for other damage (`reading.FAILURES`).
    """
    require_file(path)
    with open(path, "rb") as file:
        _check_header(file, path.stat().st_size)
        file.seek(0)
        return _read(file)


class Archive:
    """An open npz file.

    Attributes:
        names: its arrays.
    """

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.names = [name.removesuffix(".npy") for name in file.namelist()]

    def load(self, name: str) -> np.ndarray:
        """Returns an array.

        Raises:
            KeyError: where there is no such name.
            Refused, OSError, ...: as `load_npy`.
        """
        info = self._file.getinfo(f"{name}.npy")
        require_plausible_archive([info])
        with self._file.open(info) as stream:
            _check_header(stream, info.file_size)
        with self._file.open(info) as stream:
            return _read(stream)


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """Opens a npz file for the `with` block.

    Raises:
        Refused, OSError, BadZipFile: for what is not a complete archive.
    """
    require_file(path)
    with zipfile.ZipFile(path) as file:
        yield Archive(file)


def require_plausible_archive(members: list[zipfile.ZipInfo]) -> None:
    """Refuses members of an archive that unpack to more than they can hold or the memory has room for.

    Raises:
        Refused: naming the members and sizes.
    """
    unpacked, packed = sum(info.file_size for info in members), sum(info.compress_size for info in members)
    what = f"entry {listed(info.filename.removesuffix('.npy') for info in members)}"
    if unpacked > _ALWAYS_READ + packed * _MAX_PACKING:
        sizes = f"unpacks from {size_text(packed)} to {size_text(unpacked)}"
        raise Refused(f"{what} {sizes}; it is damaged or hostile, fetch it again")
    if unpacked > _ALWAYS_READ:
        require_memory(unpacked, what)


def _read(stream: IO[bytes]) -> np.ndarray:
    """Reads an array whose header was checked; refuses texts with numbers that are no characters."""
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if array.dtype.kind == "U" and array.nbytes:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max() > sys.maxunicode:
            raise Refused("holds texts with characters that do not exist; it is damaged, fetch it again")
    return array


def _check_header(stream: IO[bytes], num_bytes: int) -> None:
    """Compares the shape that an npy file declares with its size."""
    version = np.lib.format.read_magic(stream)
    if version not in _READ_HEADER:
        raise Refused(f"has version {version} of the npy format, which is not known; store it again")
    shape, _, dtype = _READ_HEADER[version](stream)
    if dtype.hasobject:
        raise Refused("holds Python objects, which could run code; store plain numbers")
    declared, stored = math.prod(shape) * dtype.itemsize, num_bytes - stream.tell()
    if declared > stored:
        sizes = f"needs {size_text(declared)} but has {size_text(max(0, stored))}"
        raise Refused(f"has shape {list(shape)}, which {sizes}: it is truncated, damaged or hostile; fetch it again")
    if declared > _ALWAYS_READ:
        require_memory(declared, f"has shape {list(shape)}, which")
