"""A config's data set."""

from __future__ import annotations

import numpy as np
import pytest

from pps_fast.config import DataConfig, PlantedConfig
from pps_fast.data.load import load_data, load_samples
from pps_fast.data.prepared import write_prepared
from pps_fast.data.synthetic import planted_data

SMALL = PlantedConfig(num_videos=10, num_segments=16, frame_dim=4)


def test_without_a_path_the_planted_data_comes():
    data = load_data(DataConfig(planted=SMALL))
    np.testing.assert_array_equal(data.features, planted_data(SMALL).features)
    assert data.provenance["name"] == "planted"


def test_with_a_path_the_file_comes_whatever_is_planted(tmp_path):
    written = planted_data(PlantedConfig(num_videos=11, num_segments=16, frame_dim=4, seed=1))
    write_prepared(tmp_path / "data.h5", written)
    data = load_data(DataConfig(path=str(tmp_path / "data.h5"), planted=SMALL))
    np.testing.assert_array_equal(data.features, written.features)
    assert data.sentences == written.sentences and data.provenance == written.provenance
    samples = load_samples(DataConfig(path=str(tmp_path / "data.h5")))
    assert samples.sentences == written.sentences and not hasattr(samples, "features")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.h5"):
        load_data(DataConfig(path=str(tmp_path / "absent.h5")))
