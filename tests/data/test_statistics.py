"""Mean and scale of frames against numpy's over all of them at once, and segments that repeat frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pps_fast.config import PlantedConfig
from pps_fast.data.statistics import copies_note, frame_statistics
from pps_fast.data.synthetic import planted_data

DATA = planted_data(PlantedConfig(num_videos=10, num_segments=16, frame_dim=3))


def test_mean_and_scale_are_those_of_the_videos_of_the_samples():
    samples = np.flatnonzero(np.isin(DATA.sample_video, [1, 4, 6]))
    # numbers around a mean that is large beside their spread
    data = replace(DATA, features=(DATA.features * 0.1 + 8).astype(np.float16))
    mean, scale = frame_statistics(data, samples)
    frames = data.features[[1, 4, 6]].astype(np.float64).reshape(-1, 3)
    assert mean.dtype == scale.dtype == np.float32
    np.testing.assert_allclose(mean, frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale, frames.std(axis=0), rtol=1e-6)
    # a video counts once however many sentences it has
    again = frame_statistics(data, samples[np.unique(data.sample_video[samples], return_index=True)[1]])
    np.testing.assert_array_equal([mean, scale], again)


def test_constant_feature_has_scale_zero():
    mean, scale = frame_statistics(replace(DATA, features=np.full_like(DATA.features, 0.1)), np.arange(5))
    np.testing.assert_array_equal(mean, np.full(3, np.float16(0.1), np.float32))
    np.testing.assert_array_equal(scale, np.zeros(3))


def test_segments_that_repeat_frames_are_told_with_the_right_number():
    note = copies_note(np.array([10, 12, 13, 40]), 32)
    assert note is not None and "32 segments are more than most videos have frames (median 12.5)" in note
    # 22 + 20 + 19 of 128
    assert "so that 48 % of them repeat a frame; prepare with --num-segments 16" in note


@pytest.mark.parametrize(
    "frames", [[10, 12, 40, 40], [30, 30, 31, 31], None], ids=["half of them", "a frame or two", "not known"]
)
def test_nothing_is_said_where_few_frames_are_repeated(frames):
    assert copies_note(None if frames is None else np.array(frames), 32) is None
