"""The whole preparation on small inputs: every field, by hand or by a loop."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.data.prepared import PreparedData
from pps_fast.data.tokens import count_tokens
from pps_fast.prepare.build import prepare
from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.frames import resample
from pps_fast.prepare.report import format_summary
from tests.support.prepare_inputs import (
    DURATIONS,
    FRAMES,
    TEST,
    TRAIN,
    WORDS,
    build,
    frames_of,
    make_inputs,
    write_features,
    write_json,
)
from tests.support.shared import shared_path


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path)


def test_samples_words_and_features_stand_where_they_belong(inputs):
    data = build(PrepareOptions(**inputs))
    rows = [*TRAIN, *TEST]
    assert [data.video_ids[v] for v in data.sample_video] == [row[0] for row in rows]
    np.testing.assert_array_equal(data.moment_s, [row[2] for row in rows])
    np.testing.assert_array_equal(data.duration_s, [DURATIONS[v] for v in data.video_ids])
    assert data.split.tolist() == ["train"] * 5 + ["test"] * 2 and set(data.fold.tolist()) == {-1}
    for video, frames in zip(data.video_ids, data.features, strict=True):
        np.testing.assert_array_equal(frames, resample(frames_of(video), 8).astype(np.float16))
    kept = [[data.words[c] for c in ids[:n]] for ids, n in zip(data.word_ids, data.num_words, strict=True)]
    assert kept[1] == ["a", "man", "'s", "dog", "sits", ","]
    assert kept[2] == ["person", "closes", "the", "door", "."]
    # ranked by the annotations' own counts, of equal counts the first to appear
    assert data.words[:5] == ["<pad>", ".", "the", "person", "door"] and sorted(data.words[1:]) == sorted(WORDS)
    np.testing.assert_allclose(data.hide_prob.sum(axis=1), 1, atol=1e-6)


def test_preparing_twice_gives_the_same_content(inputs):
    first, second = (build(PrepareOptions(**inputs)) for _ in range(2))
    for item in fields(PreparedData):
        np.testing.assert_equal(getattr(first, item.name), getattr(second, item.name))


def test_skipped_videos_disappear_with_their_samples(inputs, tmp_path):
    write_json(tmp_path / "train.json", [["Z", 5.0, [0, 1], "door"], *TRAIN, ["D", 12.0, [0, 1], "xyzzy"]])
    data = build(PrepareOptions(**inputs, skip_bad=True))
    assert data.video_ids == list("ABCDEF") and data.num_samples == 7
    assert data.provenance["skipped"]["counts"] == {"unknown video": 1, "no known word": 1}


def test_a_video_that_is_left_out_for_its_features_leaves_no_trace_in_the_content(inputs, tmp_path):
    whole = build(PrepareOptions(**inputs))
    spoiled = frames_of("B")
    spoiled[3, 1] = np.nan
    write_features(tmp_path / "features.hdf5", B=spoiled, E=np.zeros((3, 4), np.float32))
    data = build(PrepareOptions(**inputs, skip_bad=True))
    assert data.video_ids == list("ACDF") and data.provenance["skipped"]["counts"] == {"bad features": 2}
    np.testing.assert_array_equal(data.features, whole.features[[0, 2, 3, 5]])
    assert data.num_frames.tolist() == [FRAMES[video] for video in "ACDF"]


def test_features_are_never_held_whole(inputs, tmp_path):
    length = 100 * 32 * 2048 * 2
    rows = [[f"v{index}", 9.0, [0.5, 3.0], "person runs."] for index in range(100)]
    write_json(tmp_path / "train.json", rows)
    with h5py.File(tmp_path / "features.hdf5", "w") as file:
        for video_id, *_ in rows:
            file[video_id] = np.ones((2, 2048), dtype=np.float16)
    planted = {"features": (Path("planted"),), "planted_dim": 2048}
    twice = {"features": tuple(Path(f"{name}:{tmp_path}/features.hdf5") for name in "ab")}
    for changes in ({}, planted, twice):
        tracemalloc.start()
        prepare(PrepareOptions(**{**inputs, "test": None, "num_segments": 32, **changes}))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < length / 2, f"{changes}: {peak} bytes at a time, features have {length}"


def test_when_nothing_is_left_it_says_so(inputs, tmp_path):
    write_json(tmp_path / "train.json", [["Z", 5.0, [0, 1], "door"]])
    inputs["test"] = None
    with pytest.raises(ValueError, match="no usable annotation is left"):
        build(PrepareOptions(**inputs, skip_bad=True))
    with pytest.raises(ValueError, match="video Z has no features"):
        build(PrepareOptions(**inputs))


def test_what_is_wrong_with_every_row_is_said_once(inputs, tmp_path):
    inputs["features"] = (tmp_path / "suffixed.hdf5",)
    with h5py.File(inputs["features"][0], "w") as file:
        for video_id in FRAMES:
            file[f"{video_id}__fps_1"] = frames_of(video_id)
    with pytest.raises(
        ValueError, match="none of the 6 annotated videos .*; pass --feature-suffix __fps_1, which alone"
    ):
        build(PrepareOptions(**inputs))
    assert build(PrepareOptions(**inputs, feature_suffix=("__fps_1",))).num_samples == 7
    (tmp_path / "sta.txt").write_text("A 0.0 4.0##door\nB 1.0 2.0##door\n")
    with pytest.raises(ValueError, match="sta.txt: no row has a length of its video in this format, .* --durations$"):
        build(PrepareOptions(**{**inputs, "train": tmp_path / "sta.txt"}))
    (tmp_path / "others.csv").write_text("id,length\nZ,3\n")
    where = "others.csv, whose videos are named like 'Z'"
    with pytest.raises(ValueError, match=f"sta.txt: no row has a length of its video in {where}; name"):
        build(PrepareOptions(**{**inputs, "train": tmp_path / "sta.txt", "durations": (tmp_path / "others.csv",)}))


def test_joined_sources_are_resampled_together_and_recorded(inputs, tmp_path):
    for name, width in (("a", 3), ("b", 2)):
        (tmp_path / name).mkdir()
        for video_id in FRAMES:
            frames = frames_of(video_id)[:, :width]
            np.savez(tmp_path / name / f"v_{video_id}.npz", features=frames[: -1 if name == "b" else None] + 3)
    # one frame alone cannot be cut
    np.savez(tmp_path / "b" / "v_E.npz", features=frames_of("E")[:, :2] + 3)
    inputs |= {"features": (Path(f"b:{tmp_path}/b"), Path(f"a:{tmp_path}/a")), "feature_prefix": ("v_",)}
    data = build(PrepareOptions(**inputs))
    a, b = frames_of("F")[:-1, :3] + 3, frames_of("F")[:-1, :2] + 3
    frames = np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in (b, a)], axis=1)
    expected = resample(frames.astype(np.float32), 8)
    np.testing.assert_allclose(data.features[data.video_ids.index("F")], expected, atol=1e-3)
    assert data.num_frames[data.video_ids.index("F")] == FRAMES["F"] - 1
    names = [(source["source"], source["folder"], source["width"]) for source in data.recipe["sources"]]
    assert names == [("b", "b", 2), ("a", "a", 3)] and "side by side" in data.recipe["joining"]
    assert "8 segments x 5, float16, from b 2 (npz) + a 3 (npz)" in format_summary(data, 5, inputs["out"])
    checks = data.provenance["sources"]["features"]["checks"]
    assert checks == {"videos are cut to the shortest of their sources": 5}


def test_one_source_gives_the_record_of_a_source_without_a_name(inputs):
    plain = build(PrepareOptions(**inputs))
    named = build(PrepareOptions(**{**inputs, "features": (Path(f"clip:{inputs['features'][0]}"),)}))
    assert (named.content, named.recipe, named.provenance) == (plain.content, plain.recipe, plain.provenance)
    assert "joining" not in plain.recipe


def test_a_missing_annotation_file_is_told_before_its_format(inputs, tmp_path):
    with pytest.raises(ValueError, match="train.xml: no such file"):
        build(PrepareOptions(**{**inputs, "train": tmp_path / "train.xml"}))


def test_frame_dim_names_the_right_width(inputs):
    with pytest.raises(ValueError, match="video A: has features of width 4, expected 5, named with --frame-dim"):
        build(PrepareOptions(**inputs, frame_dim=5))


def test_planted_features_show_the_moments_of_the_annotations(inputs):
    with pytest.raises(ValueError, match="planted: no such file"):
        build(PrepareOptions(**{**inputs, "features": (inputs["out"].parent / "planted",)}))
    planted = PrepareOptions(**{**inputs, "features": (Path("planted"),)}, planted_dim=16, planted_noise=0.0)
    data = build(planted)
    assert data.features.shape == (6, 8, 16) and data.provenance["sources"]["features"]["format"] == "planted"
    # video E: one sentence at 0.06 to 0.33 of its length, background elsewhere
    frames = data.features[data.video_ids.index("E")].astype(np.float64)
    inside, outside = frames[1], frames[4:]
    assert np.abs(outside - outside[0]).max() < 1e-3 < np.abs(inside - outside[0]).max()


def test_charades_counts_of_both_protocols_come_from_the_raw_files(tmp_path):
    folder = shared_path("data/charades_sta")
    counts = {}
    for protocol in ("full", "filtered"):
        options = PrepareOptions(
            out=tmp_path / "charades.h5",
            protocol=protocol,
            train=folder / "charades_sta_train.txt",
            test=folder / "charades_sta_test.txt",
            durations=(folder / "Charades_v1_train.csv", folder / "Charades_v1_test.csv"),
            features=(Path("planted"),),
            vocabulary=shared_path("data/glove/charades_glove.pkl"),
            vocab_size=1111,
            num_segments=4,
            planted_dim=2,
        )
        data = build(options)
        counts[protocol] = data.provenance["counts"]["samples"]
        assert len(data.words) == 1112
    assert counts == {"full": {"train": 12404, "test": 3720}, "filtered": {"train": 10602, "test": 3158}}


def test_every_window_of_qvhighlights_is_kept_and_queries_without_are_too(tmp_path):
    """A test of reading: the vectors of the words are random, and the features planted."""
    files = {name: shared_path(f"data/qvhighlights/highlight_{name}_release.jsonl") for name in ("val", "test")}
    rows = [json.loads(line) for path in files.values() for line in path.read_text(encoding="utf-8").splitlines()]
    words = sorted(count_tokens([row["query"] for row in rows]))
    vectors = np.random.default_rng(0).standard_normal((len(words), 4)).astype(np.float32)
    np.savez(tmp_path / "words.npz", words=np.array(words), vectors=vectors)
    options = PrepareOptions(
        out=tmp_path / "qvhighlights.h5",
        protocol="as_is",
        validation=files["val"],
        train=files["test"],
        features=(Path("planted"),),
        vocabulary=tmp_path / "words.npz",
        num_segments=4,
        planted_dim=2,
        max_num_words=60,
    )
    data = build(options)
    assert (data.num_samples, len(data.window_s)) == (1550 + 1542, 2803)
    windows = {row["qid"]: row.get("relevant_windows", []) for row in rows}
    first = np.searchsorted(data.window_sample, np.arange(data.num_samples + 1))
    for sample, qid in enumerate(data.query_id):
        assert data.window_s[first[sample] : first[sample + 1]].tolist() == windows[qid]
    counts = data.provenance["counts"]
    assert (counts["windows"], counts["samples_without_times"]) == (2803, 1542)
    assert (counts["words_unknown"], counts["words_cut"]) == (0, 0)
    assert not data.provenance["skipped"]["counts"]
