"""Samples of several files, and the numbering of their videos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.prepare.feature_options import sources_of
from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.extracted import FORMAT
from pps_fast.prepare.readers.joined import open_sources
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.samples import read_samples, with_features
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


def test_a_file_of_all_splits_gives_each_split_its_rows(tmp_path):
    rows = "A,10,door,train\nA,10,dog,\nB,20,door,test\nB,20,dog,val\n"
    (tmp_path / "all.csv").write_text(f"video,duration,sentence,split\n{rows}")
    inputs = {**make_inputs(tmp_path), "train": tmp_path / "all.csv", "test": tmp_path / "all.csv"}
    samples, sources = read_samples(PrepareOptions(**inputs), Problems())
    assert list(zip(samples.split, samples.sentences, strict=True)) == [
        ("train", "door"),
        ("train", "dog"),
        ("test", "dog"),
        ("test", "door"),
    ]
    assert sources["test"]["format"] == "plain_csv" and sources["test"]["rows"] == 2
    pool = PrepareOptions(**{**inputs, "train": None, "test": None, "pool": tmp_path / "all.csv", "folds": 2})
    assert len(read_samples(pool, Problems())[0].rows) == 4
    (tmp_path / "all.csv").write_text("video,duration,sentence,split\nA,10,door,val\n")
    with pytest.raises(ValueError, match="all.csv: no row is of the split train, they are of validation"):
        read_samples(PrepareOptions(**inputs), Problems())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("clip:{}/clip", "slow:{}/slow"), "video B has no features in slow .pass --video-suffix slow:B, which"),
        (("{}/slow",), "video B has no features in slow .pass --video-suffix B, which alone would match 1 of 1"),
    ],
)
def test_the_source_that_lacks_a_video_is_named_with_the_option_that_helps(options, message, tmp_path):
    rows = [["A", 9.0, [0, 1], "door"], ["XB", 9.0, [0, 1], "door"]]
    inputs = make_inputs(tmp_path)
    for name, videos in (("clip", ["A", "XB"]), ("slow", ["A", "X"])):
        (tmp_path / name).mkdir()
        for video in videos:
            np.save(tmp_path / name / f"{video}.npy", np.ones((4, 2)))
    write_json(tmp_path / "train.json", rows)
    paths = tuple(Path(path.format(tmp_path)) for path in options)
    chosen = PrepareOptions(**{**inputs, "features": paths, "test": None})
    samples, problems = read_samples(chosen, Problems())[0], Problems()
    with open_sources(sources_of(chosen), samples.video_ids) as reader:
        with_features(samples, reader, problems)
    with pytest.raises(ValueError, match=message.replace("video B", "video XB")):
        problems.settle()


def test_features_of_one_split_alone_lead_to_folds(tmp_path):
    inputs = make_inputs(tmp_path)
    options = PrepareOptions(**inputs)
    samples, _ = read_samples(options, Problems())
    with open_sources(sources_of(options)) as reader:
        source = reader.lacking("A")
        for video in "ABCD":
            source.locate.pop(video, None)
        problems = Problems()
        with_features(samples, reader, problems)
    with pytest.raises(
        ValueError, match=r"\(pass the annotations of the split test alone, in folds: --pool FILE --folds"
    ):
        problems.settle()


def _without_lengths(folder: Path) -> PrepareOptions:
    """Returns options for rows without lengths and features of `python -m pps_fast.features` that tell them."""
    (folder / "pairs.csv").write_text("video,sentence\nA,door\nB,a dog\n", encoding="utf-8")
    with h5py.File(folder / "told.h5", "w") as file:
        file.attrs["format"], file.attrs["recipe"] = FORMAT, "{}"
        for video, length in (("A", 7.5), ("B", 8.0)):
            file[video] = np.ones((3, 2), dtype=np.float32)
            file[video].attrs["duration_s"] = length
    paths = {"train": folder / "pairs.csv", "test": None, "features": (folder / "told.h5",)}
    return PrepareOptions(**{**make_inputs(folder), **paths})


def test_lengths_are_those_of_the_features_unless_a_csv_tells_others(tmp_path):
    options = _without_lengths(tmp_path)
    samples, _ = read_samples(options, Problems())
    np.testing.assert_array_equal(samples.duration_s, [7.5, 8.0])
    (tmp_path / "lengths.csv").write_text("id,length\nB,9\n", encoding="utf-8")
    samples, _ = read_samples(replace(options, durations=(tmp_path / "lengths.csv",)), Problems())
    np.testing.assert_array_equal(samples.duration_s, [7.5, 9.0])


def test_names_that_differ_are_told_where_features_have_lengths(tmp_path):
    options = _without_lengths(tmp_path)
    (tmp_path / "pairs.csv").write_text("video,sentence\nA.mp4,door\nB.mp4,a dog\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"in told\.h5, whose videos are named like 'A'; .* --video-suffix \.mp4"):
        read_samples(options, Problems())
    samples, _ = read_samples(replace(options, video_suffix=(".mp4",)), Problems())
    np.testing.assert_array_equal(samples.duration_s, [7.5, 8.0])


def test_a_video_without_features_of_its_own_is_told_with_both_remedies(tmp_path):
    options = _without_lengths(tmp_path)
    with open(tmp_path / "pairs.csv", "a", encoding="utf-8") as file:
        file.write("C,door\n")
    problems = Problems()
    read_samples(options, problems)
    with pytest.raises(ValueError, match=r"line 4: video C has no length; .*--durations, or features that"):
        problems.settle()


def test_features_that_cannot_be_read_are_told_after_the_annotations(tmp_path):
    options = _without_lengths(tmp_path)
    (tmp_path / "told.h5").write_bytes(b"no features")
    with pytest.raises(ValueError, match="no row has a length of its video"):
        read_samples(options, Problems())
