"""Features of finished videos survive whatever ends the program, and nobody else's file is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.features.extract import Extracted
from pps_fast.features.store import fingerprint, open_store, parts_of, read_part, write_part
from pps_fast.prepare.readers.features import open_features

RECIPE = {"encoder": "x@1", "fps": 1.0, "width": 3, "image_size": [2, 2]}


def _extracted(seed: int, count: int = 5) -> Extracted:
    features = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    return Extracted(features=features, duration_s=float(count))


def test_what_is_written_is_what_prepare_reads(tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    with open_store(out, RECIPE) as store:
        store.add("a", _extracted(0), "mark a")
        store.add("b", _extracted(1, count=7), "mark b")
        store.finish()
    assert not parts_of(out).exists()
    with open_features(out) as reader:
        assert reader.ids() == {"a", "b"} and reader.told.recipe == RECIPE
        assert reader.told.lengths_s == {"a": 5.0, "b": 7.0}
        np.testing.assert_array_equal(reader.read("b"), _extracted(1, count=7).features)


def test_finished_videos_are_known_before_and_after_the_file_is_written(tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    with open_store(out, RECIPE) as store:
        store.add("a", _extracted(0), "mark a")
    assert not out.exists() and parts_of(out).is_dir()
    with open_store(out, RECIPE) as store:
        assert store.has("a", "mark a") and not store.has("b", "mark b")
        assert store.count(["a", "b"]) == 1
        # another video of the same name
        assert not store.has("a", "another")
        store.finish()
    with open_store(out, RECIPE) as store:
        assert store.has("a", "mark a") and not store.has("a", "another")
        store.add("a", _extracted(2), "another")
        store.add("b", _extracted(3), "mark b")
        store.finish()
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["a"][()], _extracted(2).features)
        assert sorted(file) == ["a", "b"]


def test_a_part_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_part(path, _extracted(0), RECIPE, "mark")
    read = read_part(path, RECIPE, "mark")
    assert read is not None and read.duration_s == 5.0
    np.testing.assert_array_equal(read.features, _extracted(0).features)
    assert read_part(path, RECIPE, None) is not None
    assert read_part(path, RECIPE, "another") is None
    assert read_part(path, {**RECIPE, "fps": 2.0}, "mark") is None
    path.write_bytes(path.read_bytes()[:-40])
    assert read_part(path, RECIPE, "mark") is None and read_part(tmp_path / "b.npz", RECIPE, "mark") is None


def test_a_file_of_somebody_else_or_of_another_recipe_is_not_replaced(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.h5", tmp_path / "ours.h5"
    with h5py.File(theirs, "w") as file:
        file["a"] = np.zeros((2, 3))
    with open_store(ours, RECIPE) as store:
        store.add("a", _extracted(0), "mark")
        store.finish()
    before = theirs.read_bytes(), ours.read_bytes()
    for path, message in ((theirs, "not written by this program"), (ours, r"another way \(fps 1.0, now 2.0\)")):
        with pytest.raises(ValueError, match=message), open_store(path, {**RECIPE, "fps": 2.0}):
            pass
    (tmp_path / "text.h5").write_text("text", encoding="utf-8")
    with pytest.raises(ValueError, match="not an HDF5 file"), open_store(tmp_path / "text.h5", RECIPE):
        pass
    with pytest.raises(ValueError, match="a folder; name the file"), open_store(tmp_path, RECIPE):
        pass
    with pytest.raises(ValueError, match="its folder is not there"), open_store(tmp_path / "no" / "f.h5", RECIPE):
        pass
    assert (theirs.read_bytes(), ours.read_bytes()) == before


def test_a_store_in_which_nothing_happens_leaves_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "f.h5", RECIPE) as store:
        store.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    for name, content in (("a", b"x" * 3_000_000), ("b", b"x" * 3_000_000), ("c", b"x" * 2_999_999 + b"y")):
        (tmp_path / name).write_bytes(content)
    marks = [fingerprint(tmp_path / name) for name in "abc"]
    assert marks[0] == marks[1] != marks[2]
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match=r"pipe\.mp4: a pipe or device, not a file"):
        fingerprint(tmp_path / "pipe.mp4")
