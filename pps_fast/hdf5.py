"""HDF5 files of other people: opened and read so that no content can reach outside the file or exhaust the machine.

HDF5 lets a data set be stored in other files (external storage, virtual data sets, external links). A file from
somebody else could so have any file of this machine copied into what we write; such data sets are refused.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pps_fast.hdf5_probe import require_harmless
from pps_fast.machine import require_memory, require_space, size_text
from pps_fast.reading import Refused, cut, listed, reading, require_file

_MAX_HOPS = 16
# deflate packs at most 1,032 bytes into one; less stored than that is no data
_MAX_PACKING = 1100
_ALWAYS_READ = 64 << 20
# of a data set: its header and the ends of blocks
_OVERHEAD = 16 << 10
_PLUGINS = {32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2"}


def open_hdf5(path: str | Path, *, needs_texts: bool = False) -> h5py.File:
    """Opens an HDF5 file for reading, after another process has looked at its structure (see `hdf5_probe`).

    Close it, or use it as a `with` block.

    Args:
        needs_texts: whether all its texts are read, so that one that cannot be is refused here.

    Raises:
        ValueError: in one sentence that keeps the true cause, by `reading`.
    """
    require_file(path)
    with reading(path):
        require_harmless(Path(path), needs_texts=needs_texts)
        return h5py.File(path, "r")


def plain_dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    """Returns a data set that lies in the same file whole and can be read.

    Args:
        parent: file or group.
        name: name below it, with slashes for groups between.

    Raises:
        KeyError: where there is no such name.
        Refused: where it is no data set, is stored in or linked from another file, or needs a missing filter.
    """
    dataset = inside(parent, name)
    if not isinstance(dataset, h5py.Dataset):
        raise Refused(f"{_label(name)} is a group; it holds {listed(dataset) or 'nothing'}")
    refuse_foreign_storage(dataset)
    return dataset


def inside(parent: h5py.Group, name: str) -> Any:
    """Returns the group or data set of a name without following a link out of the file.

    Raises:
        KeyError: where there is no such name.
        Refused: for a link to another file, or links in a circle.
    """
    return _walk(parent, name, _MAX_HOPS)


def _walk(start: Any, name: str, hops: int) -> Any:
    if hops == 0:
        raise Refused(f"{_label(name)} is a link that leads in a circle; store the data itself")
    at = start.file if name.startswith("/") else start
    for part in filter(lambda piece: piece not in ("", "."), name.split("/")):
        if not isinstance(at, h5py.Group):
            raise KeyError(name)
        link = at.get(part, getlink=True)
        if link is None:
            raise KeyError(name)
        if isinstance(link, h5py.ExternalLink):
            raise Refused(f"{_label(name)} is a link to another file, which is refused; store the data in this file")
        at = _walk(at, link.path, hops - 1) if isinstance(link, h5py.SoftLink) else at[part]
    return at


def refuse_foreign_storage(dataset: h5py.Dataset) -> None:
    """Refuses a data set whose values lie in other files, or are packed by a filter that is not installed.

    Raises:
        Refused: naming the data set and the reason.
    """
    label = _label(dataset.name)
    if dataset.is_virtual:
        raise Refused(f"{label} is virtual, put together from others, which is refused; store the data itself")
    if dataset.external:
        raise Refused(f"{label} is stored in another file, which is refused; store the data in this file")
    plan = dataset.id.get_create_plist()
    for index in range(plan.get_nfilters()):
        code, _, _, words = plan.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            method = _PLUGINS.get(code) or words.decode("ascii", "replace").strip("\0 ")[:40] or "unnamed"
            name = f"the HDF5 filter {code} ({method})"
            raise Refused(f"{label} is compressed with {name}, which is not installed; install hdf5plugin or repack it")


def read_dataset(parent: h5py.Group, name: str) -> np.ndarray:
    """Returns the values of a plain data set, after its size was checked against what is stored and what is free.

    Raises:
        KeyError, Refused: as `plain_dataset`, and where the declared size cannot be right or does not fit.
    """
    dataset = plain_dataset(parent, name)
    require_plausible_size(dataset)
    return dataset[()]


def require_plausible_size(dataset: h5py.Dataset) -> None:
    """Refuses a data set that declares far more than it stores, or more than the free memory.

    Raises:
        Refused: naming the data set, its shape and the reason.
    """
    shape = dataset.shape or ()
    declared = math.prod(shape) * dataset.dtype.itemsize
    # the largest unit that HDF5 unpacks at once
    unit = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    what = f"{_label(dataset.name)} has shape {list(shape)}"
    if max(declared, unit) > _ALWAYS_READ + stored * _MAX_PACKING:
        sizes = f"declares {size_text(max(declared, unit))} but stores {size_text(stored)}"
        raise Refused(f"{what}, which {sizes}; it is damaged or hostile, fetch it again")
    require_memory(max(declared, unit), f"{what}, which")


def _label(name: str | None) -> str:
    return f"data set {cut(str(name).strip('/'), 80)!r}"


@contextmanager
def new_hdf5(path: Path, num_bytes: int) -> Iterator[h5py.File]:
    """Creates an HDF5 file whose space is reserved before anything is written to it.

    HDF5 may crash the process when the disk fills while it writes; so the disk is filled first by the system, which
    reports an error, and HDF5 gives back at its end what it did not use.

    Args:
        path: file to create or to replace.
        num_bytes: at least what will be written, headers included.

    Raises:
        Refused: where the free space is less.
        OSError: where the system refuses the space for another reason, such as a quota.
    """
    require_space(path, num_bytes)
    memory = io.BytesIO()
    h5py.File(memory, "w").close()
    path.write_bytes(memory.getvalue())
    _fill_disk(path, num_bytes)
    with h5py.File(path, "r+") as file:
        yield file


def reserve(path: Path, num_bytes: int) -> None:
    """Reserves more space for a file of `new_hdf5` that is being written, where it needs more than was reserved.

    Args:
        num_bytes: of the whole file.

    Raises:
        ValueError, OSError: as `new_hdf5`.
    """
    size = path.stat().st_size
    if num_bytes > size:
        require_space(path, num_bytes - size)
        _fill_disk(path, num_bytes)


def _fill_disk(path: Path, num_bytes: int) -> None:
    # not on every system
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(num_bytes, 1))


def size_of(arrays: Iterable[np.ndarray], texts: Iterable[Iterable[str]]) -> int:
    """Returns at least the bytes that an HDF5 file of plain arrays and lists of texts has."""
    values = sum(array.nbytes + _OVERHEAD for array in arrays)
    # a text is 16 bytes in its data set and, with a header, a multiple of 8 bytes in a heap
    words = sum(sum(4 * len(text) + 48 for text in column) + _OVERHEAD for column in texts)
    return values + words + _OVERHEAD
