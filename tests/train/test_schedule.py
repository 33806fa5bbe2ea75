"""The learning rate follows the published schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pps_fast.config import TrainConfig
from pps_fast.train.schedule import learning_rate

GOLDEN = Path(__file__).parents[1] / "golden" / "kernels_f64.npz"


def test_schedule_equals_the_published_one_for_2000_updates():
    golden = np.load(GOLDEN, allow_pickle=False)
    config = TrainConfig()
    got = np.array([learning_rate(int(n), config) for n in golden["lr/update"]])
    np.testing.assert_allclose(got, golden["lr/lr_after_update"], rtol=1e-12, atol=0)


def test_landmarks_of_the_default_schedule():
    config = TrainConfig()
    assert learning_rate(0, config) == 1e-7
    assert learning_rate(400, config) == 4e-4
    assert learning_rate(1600, config) == 2e-4


def test_warm_up_of_one_update_starts_at_the_warm_up_rate_and_then_decays():
    config = TrainConfig(warmup_updates=1, learning_rate=1.0)
    assert [learning_rate(n, config) for n in (0, 1, 4)] == [1e-7, 1.0, 0.5]


def test_negative_update_is_refused():
    with pytest.raises(ValueError, match="update = -1"):
        learning_rate(-1, TrainConfig())
