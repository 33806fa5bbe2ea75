"""Trainings of real size: whole epochs within the time, and what is extrapolated says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import full_training
from benchmarks.full_training import NUM_VIDEOS, TRAIN_PAIRS, curve_table, random_data, training_table
from benchmarks.report import Arguments, Report
from benchmarks.step import SIZES
from pps_fast.config_tree import override
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.presets import PRESETS
from pps_fast.types import FeatureSizes
from tests.support.squeeze import squeeze

SMALL_SIZES = FeatureSizes(frame_dim=8, word_dim=6, vocab_size=23, num_segments=16)


class _Measured(Report):
    """A report on a CPU whose rows have their times."""

    def measured(self, **values: Any) -> dict[str, Any]:
        return values


def _train(tmp_path: Path, seconds: float) -> dict[str, Any]:
    report = _Measured(Arguments(dry_run=True, out=tmp_path), torch.device("cpu"))
    store = Store(random_data(SMALL_SIZES, (4, 7, 11, 13), (12, 8, 4)))
    splits = Splits(train=np.arange(12), validation=np.arange(12, 20), test=np.arange(12, 20))
    config = override(PRESETS["tiny"], {"train.epochs": 3, "train.evaluate_every": 1, "train.log_every": 1})
    full_training._train(report, config, store, splits, seconds)
    return report.rows[-1]


def test_all_epochs_are_measured_where_there_is_time(tmp_path: Path) -> None:
    row = _train(tmp_path, 100.0)
    assert row["status"] == "ok" and row["warnings"] == []
    assert (row["epochs_measured"], row["steps"], row["extrapolated"]) == (3, 6, False)
    assert row["seconds_all_epochs"] == row["seconds_measured"] > row["seconds_first_epoch"] > row["seconds_evaluation"]
    assert row["seconds_paper_extrapolated"] > row["seconds_all_epochs"]
    assert row["train_samples_per_s"] > 0 and row["eval_samples_per_s"] > 0


def test_a_training_stops_after_a_whole_epoch_and_the_rest_is_said_to_be_extrapolated(tmp_path: Path) -> None:
    row = _train(tmp_path, 1e-3)
    assert (row["epochs_measured"], row["steps"], row["extrapolated"]) == (1, 2, True)
    expected = row["seconds_measured"] + 2 * row["seconds_epoch"]
    assert row["seconds_all_epochs"] == pytest.approx(expected, rel=2e-3)
    table = squeeze(training_table([row]))
    assert "(extrapolated) |" in table and "| 1 of 3 |" in table


def test_without_time_it_is_not_run(tmp_path: Path) -> None:
    assert _train(tmp_path, 0.0)["status"] == "not run"


def test_the_paper_has_more_pairs_in_an_epoch() -> None:
    clock = full_training._Clock.__new__(full_training._Clock)
    clock.begin, clock.ends, clock.evaluations = 0.0, [0.0, 5.0, 8.0], [1.0, 1.0]
    totals = full_training._totals(clock, 9.0, 30, TRAIN_PAIRS)
    assert totals["seconds_epoch"] == 3.0 and totals["seconds_all_epochs"] == 9.0 + 28 * 3.0
    longer = totals["seconds_paper_extrapolated"] - totals["seconds_all_epochs"]
    assert longer == pytest.approx(30 * 2.0 * (12408 / 10602 - 1))


def test_random_data_have_the_sizes_they_should() -> None:
    sizes, lengths = SIZES["charades"]
    data = random_data(sizes, lengths, (30, 10, 5))
    assert data.sizes == sizes and data.num_samples == 40 and len(data.video_ids) == 5
    assert (data.split == "train").sum() == 30 and lengths[0] <= data.num_words.min()
    assert NUM_VIDEOS * sizes.num_segments * sizes.frame_dim * 2 < 3e9


def test_the_table_of_curves_has_the_largest_difference_of_any_metric() -> None:
    row = {"steps": 200, "precision": "bf16", "first_difference": 0.1, "largest_difference": 0.5, "largest_at_step": 7}
    row |= {"last_difference": 0.2, "metric_differences": {"a": -1.5, "b": 1.0}}
    assert squeeze(curve_table([row, {"losses": [1.0]}])[2:]) == "| 200 | bf16 | 0.1 | 0.5, 7 | 0.2 | 1.5 points |"
