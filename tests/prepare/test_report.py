"""The closing table."""

from __future__ import annotations

from pps_fast.prepare.build import prepare
from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.report import format_summary
from tests.support.prepare_inputs import TRAIN, make_inputs, write_json


def summary(options: PrepareOptions) -> dict[str, str]:
    data, frame_dim = prepare(options)
    lines = format_summary(data, frame_dim, options.out).splitlines()
    return {line[:14].strip() or f"line {index}": line[14:].strip() for index, line in enumerate(lines)}


def test_table_counts_what_was_kept(tmp_path):
    rows = summary(PrepareOptions(**make_inputs(tmp_path), name="small"))
    assert rows["data set"] == "small, protocol as_is"
    assert rows["samples"] == "7 (train 5 in 4 videos, test 2 in 2 videos)"
    assert rows["features"] == "8 segments x 4, float16, from hdf5"
    assert rows["words dropped"] == "1 not in the vocabulary, 5 beyond the first 6"
    assert rows["folds"] == "none"
    assert rows["file"].endswith("MiB)")
    assert "skipped" not in rows and "shared videos" not in rows and "by protocol" not in rows


def test_table_tells_of_segments_that_only_repeat_frames(tmp_path):
    rows = summary(PrepareOptions(**{**make_inputs(tmp_path), "num_segments": 16}))
    assert rows["check segments"].startswith("16 segments are more than most videos have frames (median 11)")
    assert rows["check segments"].endswith("prepare with --num-segments 8")


def test_table_tells_folds_skipped_rows_and_rows_left_out(tmp_path):
    inputs = {**make_inputs(tmp_path), "pool": tmp_path / "train.json", "train": None, "test": None, "folds": 2}
    write_json(tmp_path / "train.json", [*TRAIN, ["Z", 5.0, [0, 1], "door"], ["A", 10.0, [1, 11], "door"]])
    rows = summary(PrepareOptions(**{**inputs, "protocol": "filtered"}, skip_bad=True))
    assert rows["samples"] == "5 (pool 5 in 4 videos)"
    assert rows["folds"] == "2 by video, samples 3 2"
    assert rows["by protocol"] == "pool: 1 end > length left out of 7"
    assert rows["skipped"] == "1 unknown video"
    assert any("video Z has no features" in value for value in rows.values())


def test_table_warns_of_videos_in_two_splits(tmp_path):
    inputs = make_inputs(tmp_path)
    write_json(tmp_path / "test.json", [["A", 10.0, [1, 2], "door"]])
    assert summary(PrepareOptions(**inputs))["shared videos"] == "1 are in more than one split"
