"""Samples of several files, and the numbering of their videos."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.samples import read_samples
from tests.support.prepare_inputs import make_inputs, write_json


def test_splits_follow_each_other_and_videos_count_in_order_of_appearance(tmp_path):
    samples, sources = read_samples(PrepareOptions(**make_inputs(tmp_path)), Problems())
    assert samples.split == ["train"] * 5 + ["test"] * 2
    assert samples.video_ids == list("ABCDEF")
    np.testing.assert_array_equal(samples.sample_video, [0, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(samples.duration_s, [10, 20, 30.5, 12, 9, 31])
    np.testing.assert_array_equal(samples.window_s[[0, 6]], [[0, 4], [10, 31]])
    assert samples.sentences[-1] == "a dog sits."
    assert sources["train"]["rows"] == 5 and sources["test"]["format"] == "published_json"
    kept = samples.keep(np.array([False, False, True, True, False, False, True]))
    assert kept.video_ids == ["B", "C", "F"] and kept.split == ["train", "train", "test"]
    np.testing.assert_array_equal(kept.sample_video, [0, 1, 2])


def test_what_a_protocol_leaves_out_is_counted_by_file(tmp_path):
    inputs = make_inputs(tmp_path)
    write_json(
        tmp_path / "test.json", [["E", 9.0, [1, 10], "door"], ["E", 9.0, [9, 10], "door"], ["E", 9.0, [1, 2], "door"]]
    )
    for protocol, left_out, end in [("filtered", {"end > length": 2}, 2.0), ("full", {"start >= end": 1}, 9.0)]:
        options = PrepareOptions(**{**inputs, "protocol": protocol})
        samples, sources = read_samples(options, Problems())
        assert sources["train"]["left_out_by_protocol"] == {}
        assert sources["test"]["left_out_by_protocol"] == left_out
        assert samples.window_s[5, 1] == end


def test_a_video_of_two_files_has_one_length(tmp_path):
    options = PrepareOptions(**make_inputs(tmp_path))
    write_json(tmp_path / "test.json", [["A", 10.5, [1, 2], "door"]])
    problems = Problems()
    samples, _ = read_samples(options, problems)
    assert len(samples.rows) == 5
    with pytest.raises(ValueError, match="test.json, row 0: video A has length 10.5 here and 10.0 in an earlier row"):
        problems.settle()


def test_all_windows_count_and_rows_without_times_are_told(tmp_path):
    row = {"vid": "A", "duration": 10, "query": "door"}
    rows = [{**row, "qid": 5, "relevant_windows": [[1, 2], [3, 4]]}, row, {**row, "relevant_windows": [[0, 9]]}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = PrepareOptions(**{**make_inputs(tmp_path), "train": tmp_path / "q.jsonl", "test": None})
    samples, sources = read_samples(options, Problems())
    np.testing.assert_array_equal(samples.window_s, [[1, 2], [3, 4], [0, 9]])
    np.testing.assert_array_equal(samples.window_sample, [0, 0, 2])
    assert samples.query_id == [5, None, None]
    assert (sources["train"]["windows"], sources["train"]["rows_without_times"]) == (3, 1)
