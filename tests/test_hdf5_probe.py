"""A damaged HDF5 file that hangs or crashes the library does so in another process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast import hdf5_probe
from pps_fast.hdf5 import open_hdf5
from pps_fast.hdf5_probe import require_harmless


def _with_texts(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["numbers/x"] = np.arange(12.0)
        file.create_dataset("texts", data=[f"sentence {number}" for number in range(200)], dtype=h5py.string_dtype())
    return path


def _with_a_hole(path: Path) -> Path:
    """Returns a file of which a block was never written, as a broken copy leaves it: HDF5 walks on the spot there."""
    content = bytearray(_with_texts(path).read_bytes())
    start = content.find(b"GCOL") + 1000
    content[start : start + 400] = bytes(400)
    path.write_bytes(content)
    return path


def test_a_file_that_hangs_the_library_is_refused_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_probe, "PATIENCE_S", 1.0)
    path = _with_a_hole(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"a.h5: damaged: the HDF5 library did not get on with it for 1 s; fetch"):
        open_hdf5(path)
    # the same process looks at the next file; one that was replaced is looked at again
    require_harmless(_with_texts(tmp_path / "b.h5"))
    with open_hdf5(_with_texts(path)) as file:
        assert file["texts"].asstr()[199] == "sentence 199"


@pytest.mark.parametrize("content", [b"", b"no HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_the_library_refuses_itself_is_its_reader_s_to_tell(content, tmp_path):
    (tmp_path / "a.h5").write_bytes(content)
    require_harmless(tmp_path / "a.h5")


@pytest.mark.parametrize("has_attribute", [False, True])
def test_a_text_that_cannot_be_read_is_refused_where_texts_are_needed(has_attribute, tmp_path):
    path = _with_texts(tmp_path / "a.h5")
    if has_attribute:
        # read first; it cannot be read either
        with h5py.File(path, "a") as file:
            file.attrs["format"] = "a text"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"GCOL", b"GONE"))
    require_harmless(path)
    with pytest.raises(ValueError, match="a text in it cannot be read; fetch it again"):
        require_harmless(path, needs_texts=True)


@pytest.mark.parametrize(("walk", "answer"), [(signal.SIGSEGV, b"crashes\n"), (None, b"walked\n")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_how_the_walk_ends_is_told(walk, answer, tmp_path, monkeypatch):
    def end(path: bytes, writer: int) -> bool:
        if walk is not None:
            os.kill(os.getpid(), walk)
        return False

    monkeypatch.setattr(hdf5_probe, "_walk", end)
    assert hdf5_probe._look(b"a.h5", 30.0) == answer


def test_groups_in_a_circle_are_walked_once(tmp_path):
    path = _with_texts(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["numbers/again"] = file["/"]
    require_harmless(path)
