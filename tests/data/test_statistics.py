"""Mean and scale of frames against numpy's over all of them at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pps_fast.config import PlantedConfig
from pps_fast.data.statistics import frame_statistics
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
