"""The packed file: round trip, refusal of anything else, all or nothing."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from pps_fast.data.prepared import VERSION, PreparedData, check_output, read_prepared, write_prepared


def small() -> PreparedData:
    return PreparedData(
        video_ids=["a", "b"],
        duration_s=np.array([10.0, 4.0]),
        features=np.arange(24, dtype=np.float16).reshape(2, 4, 3),
        words=["<pad>", "door", "café"],
        word_vectors=np.array([[0, 0], [1, 2], [3, 4]], dtype=np.float32),
        sample_video=np.array([0, 1, 1]),
        sentences=["door", "café door", "door"],
        word_ids=np.array([[1, 0], [2, 1], [1, 0]]),
        num_words=np.array([1, 2, 1]),
        hide_prob=np.array([[1, 0], [0.25, 0.75], [1, 0]], dtype=np.float32),
        moment_s=np.array([[1.0, 5.0], [1.0, 4.5], [0.0, 2.0]]),
        split=np.array(["train", "test", "validation"]),
        fold=np.array([0, -1, 1]),
        provenance={"name": "small", "protocol": "as_is"},
    )


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


def test_kinds_of_samples_are_kept_and_may_be_absent(tmp_path):
    kinds = np.array(["short", "long", "short"])
    write_prepared(tmp_path / "kinds.h5", replace(small(), kind=kinds))
    assert read_prepared(tmp_path / "kinds.h5").kind.tolist() == kinds.tolist()
    # as in every file written before there were kinds
    write_prepared(tmp_path / "none.h5", small())
    with h5py.File(tmp_path / "none.h5") as file:
        assert "kind" not in file
    assert read_prepared(tmp_path / "none.h5").kind is None


def test_moments_are_fractions_clipped_to_the_video():
    np.testing.assert_allclose(small().moment, [[0.1, 0.5], [0.25, 1.0], [0.0, 0.5]], rtol=0, atol=1e-15)


def test_sizes_come_from_the_arrays():
    sizes = small().sizes
    assert (sizes.frame_dim, sizes.word_dim, sizes.vocab_size, sizes.num_segments) == (3, 2, 3, 4)
    assert small().num_samples == 3


def test_the_same_data_gives_the_same_bytes(tmp_path):
    for name in ("x.h5", "y.h5"):
        write_prepared(tmp_path / name, small())
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features", np.zeros((2, 4, 3), np.float32), "features: dtype float32; expected float16"),
        ("features", np.zeros((1, 4, 3), np.float16), r"features: shape \(1, 4, 3\)"),
        ("features", np.zeros((2, 12), np.float16), "features: shape"),
        ("duration_s", np.array([10.0, 0.0]), "duration_s: smallest 0.0"),
        ("video_ids", ["a", "a"], "video_ids: repeated names"),
        ("sample_video", np.array([0, 1, 2]), "sample_video: values 0 to 2; expected 0 to 1"),
        ("word_ids", np.array([[1, 0], [3, 1], [1, 0]]), "word_ids: values 0 to 3"),
        ("word_ids", np.array([[1, 1], [2, 1], [1, 0]]), "word_ids: classes beyond num_words"),
        ("num_words", np.array([0, 2, 1]), "num_words: values 0 to 2; expected 1 to 2"),
        ("hide_prob", np.array([[1, 0], [0.2, 0.7], [1, 0]], np.float32), "hide_prob: row sums"),
        ("hide_prob", np.array([[0.5, 0.5], [0.5, 0.5], [1, 0]], np.float32), "hide_prob: mass after the last word"),
        ("word_vectors", np.ones((3, 2), np.float32), r"word_vectors: row 0 \(padding\) is not zero"),
        ("split", np.array(["train", "test", "dev"]), r"split: values \['dev'\]"),
        ("fold", np.array([0, 1]), r"fold: shape \(2,\)"),
        ("kind", np.array(["short"]), r"kind: shape \(1,\)"),
        ("kind", np.array(["short", "", "short"]), "kind: samples without a word"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(small(), **{name: value})


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="x.h5: not a readable HDF5 file of prepared data.*pps_fast.prepare"):
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
        file.attrs["version"] = VERSION - 1
    with pytest.raises(ValueError, match=f"version {VERSION - 1}, this pps_fast reads {VERSION}"):
        read_prepared(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    before = path.read_bytes()
    made = h5py.Group.create_dataset

    def stop_late(self, name, *args, **kwargs):
        if name == "sentences":
            raise error
        return made(self, name, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", stop_late)
    expected = ValueError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is ValueError else None):
        write_prepared(path, replace(small(), provenance={"name": "other"}))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"]
    assert path.read_bytes() == before


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
