"""The packed file: round trip, refusal of anything else, all or nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from pps_fast.data.feature_file import FeatureFile
from pps_fast.data.identity import PARTS
from pps_fast.data.prepared import (
    VERSION,
    PreparedData,
    check_output,
    read_prepared,
    read_samples,
    read_sizes,
    write_prepared,
)
from pps_fast.data.record import ARRAYS
from pps_fast.files import Note
from tests.support.prepared_data import small, write_version_1


def test_reading_gives_back_what_was_written(tmp_path):
    data = small()
    write_prepared(tmp_path / "x.h5", data)
    again = read_prepared(tmp_path / "x.h5")
    for item in fields(PreparedData):
        expected, got = getattr(data, item.name), getattr(again, item.name)
        if isinstance(expected, np.ndarray):
            assert got.dtype.kind == expected.dtype.kind
            np.testing.assert_array_equal(got, expected)
        else:
            assert got == expected


def test_samples_are_read_and_verified_without_the_features(tmp_path):
    path = tmp_path / "x.h5"
    write_prepared(path, replace(small(), **OPTIONAL))
    _flip(path, "features")
    samples = read_samples(path)
    assert not hasattr(samples, "features") and samples.sentences == small().sentences
    np.testing.assert_array_equal(samples.window_s, OPTIONAL["window_s"])
    assert read_sizes(path) == (replace(small(), **OPTIONAL).sizes, 2)
    with pytest.raises(ValueError, match="features are not what was written"):
        read_prepared(path)
    _flip(path, "window_s")
    with pytest.raises(ValueError, match="x.h5: damaged: windows are not what was written"):
        read_samples(path)


def test_a_file_beyond_the_free_memory_is_refused_before_it_is_read_and_its_samples_may_fit(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    arrays = {name: getattr(small(), name).nbytes for name in (*ARRAYS, "features")}
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: sum(arrays.values()) - 1)
    read_samples(path)
    with pytest.raises(ValueError, match=r"x.h5: what is read of it needs \d+ bytes of memory, \d+ bytes are"):
        read_prepared(path)


def test_features_that_stay_in_the_file_are_verified_and_have_the_same_content(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    data = read_prepared(path, "disk")
    assert isinstance(data.features, FeatureFile) and data.content == small().content and data.sizes == small().sizes
    np.testing.assert_array_equal(data.features[:], small().features)
    # as 'auto' decides by size
    assert isinstance(read_prepared(path).features, np.ndarray)
    assert isinstance(read_prepared(path, copies=0).features, FeatureFile)
    monkeypatch.setattr("pps_fast.data.prepared.free_memory", lambda: 6 * small().features.nbytes)
    kinds = [type(read_prepared(path, copies=copies).features) for copies in (3, 4)]
    assert kinds == [np.ndarray, FeatureFile]
    monkeypatch.setattr("pps_fast.data.prepared.free_memory", lambda: 2 * small().features.nbytes - 1)
    assert isinstance(read_prepared(path).features, FeatureFile)
    assert isinstance(read_prepared(path, "host").features, np.ndarray)
    _flip(path, "features")
    with pytest.raises(ValueError, match="x.h5: damaged: features are not what was written"):
        read_prepared(path)


def test_compressed_features_are_read_into_memory_or_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    with h5py.File(path, "a") as file:
        del file["features"]
        file.create_dataset("features", data=small().features, compression="gzip")
    monkeypatch.setattr("pps_fast.data.prepared.free_memory", lambda: 1)
    np.testing.assert_array_equal(read_prepared(path).features, small().features)
    with pytest.raises(ValueError, match="x.h5: data.residence = 'disk': .* in chunks or compressed"):
        read_prepared(path, "disk")


def _flip(path, name):
    """Flips the lowest bit of a number, which keeps it in its range."""
    with h5py.File(path) as file:
        place = file[name].id.get_offset() + file[name].nbytes // 2
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_kinds_of_samples_are_kept_and_may_be_absent(tmp_path):
    kinds = np.array(["short", "long", "short"])
    write_prepared(tmp_path / "kinds.h5", replace(small(), kind=kinds))
    assert read_prepared(tmp_path / "kinds.h5").kind.tolist() == kinds.tolist()
    # as in every file written before there were kinds
    write_prepared(tmp_path / "none.h5", small())
    with h5py.File(tmp_path / "none.h5") as file:
        assert "kind" not in file
    assert read_prepared(tmp_path / "none.h5").kind is None


def test_the_same_data_gives_the_same_bytes(tmp_path):
    for name in ("x.h5", "y.h5"):
        write_prepared(tmp_path / name, small())
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="x.h5: (not an HDF5 file|truncated, its end is missing|cannot be read)"):
            read_prepared(path)


def test_missing_foreign_older_and_damaged_files_are_told_apart(tmp_path):
    path = tmp_path / "x.h5"
    with pytest.raises(ValueError, match="no such file; write it with"):
        read_prepared(path)
    with h5py.File(path, "w") as file:
        file["3MSZA"] = np.zeros(3)
    with pytest.raises(ValueError, match="an HDF5 file, but not one of prepared data"):
        read_prepared(path)
    path.unlink()
    write_prepared(path, small())
    with h5py.File(path, "a") as file:
        del file["fold"]
    with pytest.raises(ValueError, match="truncated, damaged"):
        read_prepared(path)
    with h5py.File(path, "a") as file:
        file["fold"] = np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match=r"x.h5: .*fold: shape \(2,\)"):
        read_prepared(path)
    with h5py.File(path, "a") as file:
        file.attrs["version"] = VERSION + 1
    with pytest.raises(ValueError, match=f"version {VERSION + 1}, this pps_fast reads 1 and {VERSION}"):
        read_prepared(path)


OPTIONAL = {
    "query_id": [7, "b", None],
    "sentence_vectors": np.arange(6, dtype=np.float32).reshape(3, 2),
    "num_frames": np.array([31, 8]),
    "recipe": {"sources": [{"file": "clip.h5", "format": "hdf5"}], "num_segments": 4},
    "kind": np.array(["short", "long", "short"]),
    "window_s": np.array([[1.0, 5.0], [6.0, 7.0], [0.0, 2.0]]),
    "window_sample": np.array([0, 0, 2]),
}


def test_everything_optional_comes_back_as_given(tmp_path):
    data = replace(small(), **OPTIONAL)
    write_prepared(tmp_path / "x.h5", data)
    again = read_prepared(tmp_path / "x.h5")
    for name, value in OPTIONAL.items():
        np.testing.assert_equal(getattr(again, name), value)
    assert again.content == data.content


def test_a_file_of_version_1_is_the_same_data_and_says_so(tmp_path):
    provenance = {"name": "small", "sources": {"features": {"file": "a.h5", "format": "hdf5"}}}
    data = replace(small(), provenance=provenance)
    path = write_version_1(tmp_path / "old.h5", data)
    with pytest.warns(Note, match="old.h5: prepared by an older pps_fast"):
        again = read_prepared(path)
    np.testing.assert_array_equal(again.moment_s, data.moment_s)
    assert again.recipe["sources"] == [provenance["sources"]["features"]] and again.num_frames is None
    assert {name: again.content[name] for name in PARTS} == {name: data.content[name] for name in PARTS}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("features", "features"),
        ("window_s", "windows"),
        ("window_sample", "windows"),
        ("duration_s", "windows"),
        ("word_vectors", "words"),
        ("hide_prob", "words"),
        ("sample_video", "sentences"),
        ("sentence_vectors", "sentences"),
        ("fold", "splits"),
        ("num_frames", "record"),
    ],
)
def test_a_flipped_bit_is_detected_and_its_part_named(name, part, tmp_path):
    path = tmp_path / "x.h5"
    write_prepared(path, replace(small(), **OPTIONAL))
    _flip(path, name)
    with pytest.raises(ValueError, match=f"x.h5: (damaged: {part} are not what was written|prepared data, field)"):
        read_prepared(path)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "x.h5"
    write_prepared(path, replace(small(), **OPTIONAL))
    whole, expected, refused = path.read_bytes(), read_prepared(path).content, 0
    for place in np.random.default_rng(0).integers(0, len(whole), 300):
        content = bytearray(whole)
        content[place] ^= 16
        path.write_bytes(content)
        try:
            assert read_prepared(path).content == expected
        except ValueError as error:
            refused += 1
            assert "x.h5: " in str(error)
    assert refused > 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    before = path.read_bytes()
    create = h5py.Group.create_dataset

    def stop_late(self, name, *args, **kwargs):
        if name == "sentences":
            raise error
        return create(self, name, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", stop_late)
    expected = ValueError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(
        expected, match="x.h5: not written, because the disk is full" if expected is ValueError else None
    ):
        write_prepared(path, replace(small(), provenance={"name": "other"}))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"]
    assert path.read_bytes() == before


def test_a_disk_without_room_is_met_before_writing_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    before = path.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"x.h5: needs .* KiB on the disk, 1000 bytes are free; make room"):
        write_prepared(path, small())
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"] and path.read_bytes() == before


def test_output_place_is_checked_before_the_work(tmp_path):
    check_output(tmp_path / "new.h5")
    write_prepared(tmp_path / "x.h5", small())
    check_output(tmp_path / "x.h5")
    (tmp_path / "notes.txt").write_text("mine")
    for place, message in [("no/x.h5", "does not exist"), ("notes.txt", "is not a prepared file"), (".", "a folder")]:
        with pytest.raises(ValueError, match=message):
            check_output(tmp_path / place)


def test_long_provenance_survives(tmp_path):
    long = {"skipped": ["x" * 100] * 2000}
    write_prepared(tmp_path / "x.h5", replace(small(), provenance=long))
    assert len(json.dumps(read_prepared(tmp_path / "x.h5").provenance)) > 200_000


def test_fields_that_stand_in_another_file_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    size = small().features.nbytes
    (tmp_path / "secret").write_bytes(bytes(size))
    with h5py.File(path, "a") as file:
        del file["features"]
        file.create_dataset("features", small().features.shape, "f2", external=[("secret", 0, size)])
    with pytest.raises(ValueError, match="x.h5: data set 'features' is stored in another file, which is refused"):
        read_prepared(path)
