"""A data set in memory: fields that fit together, windows and what is derived from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pps_fast.data.record import feature_recipe
from tests.support.prepared_data import small


def test_moments_are_fractions_clipped_to_the_video():
    np.testing.assert_allclose(small().moment, [[0.1, 0.5], [0.25, 1.0], [0.0, 0.5]], rtol=0, atol=1e-15)


def test_sizes_come_from_the_arrays():
    sizes = small().sizes
    assert (sizes.frame_dim, sizes.word_dim, sizes.vocab_size, sizes.num_segments) == (3, 2, 3, 4)
    assert small().num_samples == 3


def several() -> dict[str, np.ndarray]:
    return {
        "window_s": np.array([[1.0, 5.0], [6.0, 12.0], [7.0, 8.0], [0.0, 2.0]]),
        "window_sample": np.array([0, 0, 0, 2]),
    }


def test_a_sample_has_none_one_or_several_windows():
    data = replace(small(), **several())
    assert data.num_windows.tolist() == [3, 0, 1]
    np.testing.assert_array_equal(data.moment_s, [[1, 5], [np.nan, np.nan], [0, 2]])
    # clipped to the video; filled up with the first
    expected = [[[0.0, 0.5]] * 3, [[0.1, 0.5], [0.6, 1.0], [0.7, 0.8]]]
    np.testing.assert_allclose(data.truth(np.array([2, 0])), expected, rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="sample 1: has no window"):
        data.truth(np.array([0, 1]))


def test_a_data_set_may_have_no_window_at_all():
    data = replace(small(), window_s=np.zeros((0, 2)), window_sample=np.zeros(0, dtype=np.int64))
    assert data.num_windows.tolist() == [0, 0, 0] and np.isnan(data.moment).all()
    assert data.truth(np.zeros(0, dtype=np.int64)).shape == (0, 1, 2)


def test_with_one_window_each_truth_and_moment_are_the_same_bits():
    data = small()
    np.testing.assert_array_equal(data.truth(np.arange(3))[:, 0], data.moment)


def test_recipe_names_sources_and_segments():
    recipe = feature_recipe([{"file": "clip.h5", "format": "hdf5"}], 32)
    assert recipe["sources"][0]["file"] == "clip.h5" and recipe["num_segments"] == 32


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
        ("window_sample", np.array([0, 2, 1]), "window_sample: samples out of order"),
        ("window_sample", np.array([0, 1, 3]), "window_sample: values 0 to 3; expected 0 to 2"),
        ("window_s", np.array([[1.0, np.nan], [1.0, 4.5], [0.0, 2.0]]), "window_s: values that are not finite"),
        ("window_s", np.array([[5.0, 1.0], [1.0, 4.5], [0.0, 2.0]]), "window_s: 1 windows end before they start"),
        ("query_id", [1], "query_id: 1 entries; expected 3"),
        ("num_frames", np.array([3, 0]), "num_frames: values 0 to 3"),
        ("sentence_vectors", np.zeros((2, 5), np.float32), r"sentence_vectors: shape \(2, 5\); expected \(3, 5\)"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(small(), **{name: value})
