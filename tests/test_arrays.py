"""npy and npz files: plain arrays are read, sizes that cannot be right are refused before they are allocated."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from pps_fast.arrays import load_npy, open_npz
from pps_fast.reading import FAILURES, Refused

ARRAYS = (
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.ones((3, 2), np.float16)),
    np.zeros((0, 4)),
    np.array(["é"]),
)


def _header(shape: str, content: bytes = b"") -> bytes:
    """An npy file of float32 that declares a shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_every_version_are_read_back(version, array, tmp_path):
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, array, version=version)
    np.testing.assert_array_equal(load_npy(tmp_path / "x.npy"), array)
    np.savez_compressed(tmp_path / "x.npz", a=array, b=1)
    with open_npz(tmp_path / "x.npz") as archive:
        assert archive.names == ["a", "b"]
        np.testing.assert_array_equal(archive.load("a"), array)


NPY = {
    "huge": (_header("(10000000000000, 4)"), "needs 145.5 TiB but has 0 bytes"),
    "truncated": (_header("(2, 3)", b"1234"), "needs 24 bytes but has 4 bytes: it is truncated"),
    "negative": (_header("(-2, 3)", b"1234"), None),
    "unknown version": (b"\x93NUMPY\x09\x00", "version .9, 0. of the npy format"),
    "objects": (b"", "holds Python objects"),
    "no header": (b"hello", None),
    "open bracket": (_header("(2, 3").replace(b"}", b" "), None),
    "empty": (b"", None),
}


@pytest.mark.parametrize("name", NPY)
def test_npy_files_that_cannot_be_right_are_refused(name, tmp_path):
    content, words = NPY[name]
    if name == "objects":
        stream = io.BytesIO()
        np.save(stream, np.array([{}], dtype=object))
        content = stream.getvalue()
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(FAILURES if words is None else Refused, match=words):
        load_npy(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("a.npy", content)
    with open_npz(tmp_path / "x.npz") as archive, pytest.raises(FAILURES, match=words):
        archive.load("a")


def test_an_archive_that_unpacks_to_more_than_deflate_can_hold_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a.npy", _header("(25000000,)", bytes(100_000_000)))
    with open_npz(path) as archive, pytest.raises(Refused, match="entry a unpacks from .* to 95.4 MiB; it is damaged"):
        archive.load("a")


def test_an_archive_beyond_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", _header("(20000000,)", bytes(80_000_000)))
    with open_npz(tmp_path / "x.npz") as archive, pytest.raises(Refused, match="entry a needs 76.3 MiB of memory"):
        archive.load("a")


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_with_numbers_that_are_no_characters_are_refused(order, tmp_path):
    good = np.array([["door", "\U0010ffff"], ["", "caf\xe9"]], dtype=f"{order}U4")
    np.save(tmp_path / "x.npy", good)
    assert load_npy(tmp_path / "x.npy").tolist() == good.tolist()
    codes = np.ascontiguousarray(good).view(f"{order}u4")
    codes[0, 1] = 0x110000
    np.save(tmp_path / "x.npy", codes.view(f"{order}U4"))
    np.savez(tmp_path / "x.npz", words=codes.view(f"{order}U4"))
    with pytest.raises(Refused, match="characters that do not exist"):
        load_npy(tmp_path / "x.npy")
    with open_npz(tmp_path / "x.npz") as archive, pytest.raises(Refused, match="characters that do not exist"):
        archive.load("words")
