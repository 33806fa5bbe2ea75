"""Ways to spoil what stands in an HDF5 file, so that it is still one."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# beside the spoiled file; its content must never get into what a program writes
SECRET = "secret.txt"
SECRET_TEXT = b"4242secret" * 100


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _external(file: h5py.File, name: str, rng: random.Random) -> None:
    old = file[name]
    shape, dtype = old.shape, old.dtype
    del file[name]
    file.create_dataset(name, shape, "f4" if dtype.hasobject else dtype, external=[(SECRET, 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, name: str, rng: random.Random) -> None:
    shape = file[name].shape or (1,)
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype="f4")
    layout[...] = h5py.VirtualSource(rng.choice((".", "gone.h5")), rng.choice(_names(file) or ["x"]), shape=shape)
    file.create_virtual_dataset(name, layout)


def _link(file: h5py.File, name: str, rng: random.Random) -> None:
    del file[name]
    file[name] = rng.choice(
        (h5py.SoftLink("/" + name), h5py.SoftLink("/gone"), h5py.SoftLink("/"), h5py.ExternalLink(SECRET, "/x"))
    )


def _loop(file: h5py.File, name: str, rng: random.Random) -> None:
    del file[name]
    file[name] = file["/"]


def _declared(file: h5py.File, name: str, rng: random.Random) -> None:
    shape = rng.choice(((10**9, 10**4), (2**40,), (2**20, 2**20, 2**20), (10, 0), ()))
    del file[name]
    if shape:
        file.create_dataset(name, shape, "f4", chunks=tuple(min(max(size, 1), 100) for size in shape))
    else:
        file.create_dataset(name, data=h5py.Empty("f4"))


def _values(file: h5py.File, name: str, rng: random.Random) -> None:
    old = file[name]
    if old.dtype.kind not in "fiu" or not old.shape:
        return
    array = old[()]
    value = rng.choice((np.nan, np.inf, -np.inf, 0.0, -1.0, 1e9, 1e38, 1e-9, 7.0))
    with np.errstate(all="ignore"):
        if rng.random() < 0.4:
            array[...] = np.float64(value).astype(array.dtype)
        elif array.size:
            array.reshape(-1)[rng.randrange(array.size)] = np.float64(value).astype(array.dtype)
    old[...] = array


def _dtype(file: h5py.File, name: str, rng: random.Random) -> None:
    shape = file[name].shape or (1,)
    del file[name]
    kind = rng.choice(
        ("f2", "f8", ">f4", "i1", "u8", "c16", "S5", "?", "V7", [("a", "f4"), ("b", "i4")], h5py.string_dtype(),
         h5py.vlen_dtype("f4"), h5py.ref_dtype, h5py.opaque_dtype("M8[s]"), h5py.enum_dtype({"A": 1}))
    )  # fmt: skip
    file.create_dataset(name, shape, kind)


def _shape(file: h5py.File, name: str, rng: random.Random) -> None:
    old = file[name]
    array = old[()] if old.dtype.kind in "fiu" else np.zeros(old.shape)
    del file[name]
    shapes: tuple[Any, ...] = (array[None], np.ravel(array), array[:0], np.zeros(()), array[..., None], array[1:])
    try:
        file[name] = rng.choice(shapes)
    except (ValueError, TypeError, IndexError):
        file[name] = 0.0


def _gone(file: h5py.File, name: str, rng: random.Random) -> None:
    del file[name]
    if rng.random() < 0.5:
        file.create_group(name)


def _texts(file: h5py.File, name: str, rng: random.Random) -> None:
    old = file[name]
    if not h5py.check_string_dtype(old.dtype):
        return
    text = rng.choice(
        (b"", b"\xff\xfe", b"x" * 100_000, b"[" * 100_000, b"null", b"1", b'{"a": NaN}', b"9" * 5000, "é".encode())
    )
    if old.shape:
        if old.size:
            old[rng.randrange(old.shape[0])] = text
    else:
        old[()] = text


def _attribute(file: h5py.File, name: str, rng: random.Random) -> None:
    known = list(file.attrs) or ["x"]
    chosen = rng.choice(known)
    arrays = (np.arange(3), np.array(["a"], dtype="S"), h5py.Empty("f4"))
    texts = ("x", "2", b"\xff", "{}", "[]", '{"features": 1}')
    file.attrs[chosen] = rng.choice((0, 1, 2, 3, -1, 1.5, *texts, *arrays))
    if rng.random() < 0.2:
        del file.attrs[chosen]


def _filter(file: h5py.File, name: str, rng: random.Random) -> None:
    old = file[name]
    if old.dtype.kind not in "fiu" or not old.shape or not old.size:
        return
    array = old[()]
    del file[name]
    new = file.create_dataset(name, data=array, chunks=array.shape, compression=rng.choice(("gzip", "lzf")),
                              fletcher32=rng.random() < 0.5)  # fmt: skip
    if rng.random() < 0.7:
        new.id.write_direct_chunk((0,) * array.ndim, rng.randbytes(50))


_WAYS: tuple[Callable[[h5py.File, str, random.Random], None], ...] = (
    _external, _virtual, _link, _loop, _declared, _values, _values, _dtype, _shape, _gone, _texts, _attribute, _filter,
)  # fmt: skip


def spoil_hdf5(rng: random.Random, path: Path) -> None:
    """Changes a data set, link, value or attribute of an HDF5 file."""
    (path.parent / SECRET).write_bytes(SECRET_TEXT)
    with h5py.File(path, "r+") as file:
        names = _names(file)
        way = rng.choice(_WAYS)
        # what the library itself does not let happen leaves the file as it is, or half spoiled
        with contextlib.suppress(ValueError, TypeError, LookupError, RuntimeError, OSError):
            way(file, rng.choice(names), rng)
