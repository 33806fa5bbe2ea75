"""Features in their file: what is read is what numpy would have, and what cannot be read is told."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.data import feature_file
from pps_fast.data.feature_file import FeatureFile, blocks_of, features_in_place

VALUES = np.random.default_rng(0).standard_normal((7, 5, 3)).astype(np.float16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["before"] = np.arange(11)
        file["features"] = VALUES
        file["after"] = np.arange(13)
    return tmp_path / "x.h5"


@pytest.fixture
def features(path: Path) -> FeatureFile:
    with h5py.File(path) as file:
        return features_in_place(path, file["features"])


@pytest.mark.parametrize(
    "index",
    [
        0,
        np.int64(6),
        -1,
        slice(2, 5),
        slice(None, None, 3),
        slice(4, 4),
        np.array([6, 0, 0, 1, 2, 5]),
        np.array([-1, 3]),
        np.array([], dtype=np.int64),
        np.arange(7) % 2 == 0,
        (2, 4),
        (np.int64(2), slice(1, 3), 2),
        (slice(1, 4), 0),
        (np.array([3, 1]), slice(None), 1),
    ],
    ids=str,
)
def test_an_index_gives_what_it_gives_of_an_array(features, index):
    got = features[index]
    np.testing.assert_array_equal(got, VALUES[index])
    assert got.dtype == np.float16 and got.shape == VALUES[index].shape
    # its own memory, which torch takes without a warning
    assert got.flags.writeable


@pytest.mark.parametrize("index", [7, -8, np.array([0, 7])], ids=str)
def test_an_index_outside_is_refused_as_numpy_does(features, index):
    with pytest.raises(IndexError):
        features[index]


def test_sizes_are_those_of_the_array_and_all_of_it_comes_in_blocks(features, monkeypatch):
    assert (features.shape, features.dtype, features.nbytes, len(features)) == ((7, 5, 3), "float16", 210, 7)
    monkeypatch.setattr(feature_file, "_BLOCK_BYTES", 100)
    blocks = list(blocks_of(features))
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), VALUES)
    np.testing.assert_array_equal(np.stack(list(features)), VALUES)
    assert next(blocks_of(VALUES)) is VALUES


def test_videos_side_by_side_are_read_at_once_and_into_the_memory_that_is_given(features, monkeypatch):
    places, read = [], os.preadv

    def counted(descriptor, buffers, place):
        places.append(place - features.offset)
        return read(descriptor, buffers, place)

    monkeypatch.setattr(feature_file.os, "preadv", counted)
    room = np.zeros((5, 5, 3), np.float16)
    assert features.read(np.array([1, 2, 3, 0, 6]), room) is room
    np.testing.assert_array_equal(room, VALUES[[1, 2, 3, 0, 6]])
    assert places == [30, 0, 180]


def test_reads_that_stop_early_are_continued(features, monkeypatch):
    read = os.preadv
    monkeypatch.setattr(feature_file.os, "preadv", lambda file, buffers, place: read(file, [buffers[0][:7]], place))
    np.testing.assert_array_equal(features[2:5], VALUES[2:5])


def test_a_file_that_is_replaced_stays_what_it_was(features, path):
    path.with_suffix(".new").write_bytes(b"other")
    path.with_suffix(".new").replace(path)
    np.testing.assert_array_equal(features[3], VALUES[3])


def test_a_file_that_is_cut_short_or_fails_is_told_in_a_sentence(features, path, monkeypatch):
    with pytest.raises(ValueError, match="x.h5: truncated: its features are longer than the file"):
        FeatureFile(path, features.offset + path.stat().st_size, (7, 5, 3), np.float16)
    with pytest.raises(ValueError, match="no.h5: cannot be opened: no such file"):
        FeatureFile(path.with_name("no.h5"), 0, (7, 5, 3), np.float16)
    os.truncate(path, features.offset + 100)
    np.testing.assert_array_equal(features[2], VALUES[2])
    with pytest.raises(ValueError, match="x.h5: truncated while it was read; copy it again"):
        features[3]

    def fail(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(feature_file.os, "preadv", fail)
    with pytest.raises(ValueError, match="x.h5: features cannot be read: the disk reports an error"):
        features[0]


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"chunks": (1, 5, 3)}, "in chunks or compressed"),
        ({"compression": "gzip"}, "in chunks or compressed"),
        ({"dtype": ">f2"}, "empty or in another order of bytes"),
    ],
    ids=["chunks", "compressed", "order"],
)
def test_what_does_not_lie_there_as_in_memory_is_refused_with_the_way_out(options, how, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("features", data=VALUES, **options)
        with pytest.raises(ValueError, match=rf"x.h5: data.residence = 'disk': .* {how} .*--data.residence host"):
            features_in_place(tmp_path / "x.h5", dataset)
