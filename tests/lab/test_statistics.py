"""Intervals against numbers computed by hand and the printed table of Student's t."""

from __future__ import annotations

import math

import pytest
import torch

from pps_fast.eval.bootstrap import VideoBootstrap
from pps_fast.lab.statistics import folds_of, seed_spread, summarize, t_interval, t_probability, t_quantile

# two-sided 95 %, as printed in tables
PRINTED = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 14: 2.145, 24: 2.064, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize(("degrees", "printed"), PRINTED.items())
def test_quantiles_of_student_are_those_of_the_table(degrees, printed):
    assert t_quantile(degrees) == pytest.approx(printed, abs=5.1e-4)


def test_one_and_two_degrees_have_closed_forms():
    for t in (0.1, 1.0, 7.0):
        assert t_probability(t, 1) == pytest.approx(2 / math.pi * math.atan(t), rel=1e-14)
        assert t_probability(t, 2) == pytest.approx(t / math.sqrt(2 + t * t), rel=1e-14)


def test_interval_of_four_runs_by_hand():
    # mean 2.5, variance 5/3, half width 3.18245 * sqrt(5/3) / 2
    low, high = t_interval([1.0, 2.0, 3.0, 4.0])
    assert (low, high) == pytest.approx((0.445739743, 4.554260257), abs=1e-8)


def test_one_run_has_no_interval_over_runs():
    assert t_interval([5.0]) is None


def test_spread_over_seeds_is_pooled_over_rows_and_folds_and_does_not_see_their_means():
    # deviations -1, 1 on fold 0; -3, 0, 3 on fold 1 of another row; a fold with one seed tells nothing
    rows = [{(1, 0): 9.0, (2, 0): 11.0, (1, 1): 50.0}, {(1, 1): 67.0, (2, 1): 70.0, (3, 1): 73.0}]
    assert seed_spread(rows) == {"value": pytest.approx(math.sqrt(20 / 3)), "degrees": 3}
    assert seed_spread([{(1, 0): 1.0, (1, 1): 2.0}, {(1, 0): 3.0}]) is None


def test_folds_come_once_and_in_order():
    assert folds_of([(8, 2), (8, 0), (9, 2)]) == (0, 2)
    assert folds_of([(8, None), (9, None)]) == (None,)


def test_summary_is_the_mean_of_runs_and_averages_seeds_before_it_resamples_videos():
    # fold 0: two samples of one video, two seeds; fold 1: one sample, one seed
    values = {
        (1, 0): torch.tensor([0.0, 100.0]),
        (2, 0): torch.tensor([100.0, 100.0]),
        (1, 1): torch.tensor([30.0]),
    }
    summary = summarize(values, VideoBootstrap(torch.tensor([4, 4, 7]), num_resamples=400, seed=0))
    assert summary.value == pytest.approx((50 + 100 + 30) / 3) and summary.num_runs == 3
    # of the runs' means 50, 100, 30: variance 1300, t with 2 degrees 4.302653
    half = 4.302652730 * math.sqrt(1300 / 3)
    assert summary.over_runs == pytest.approx((60 - half, 60 + half), abs=1e-6)
    # a resampling has one video twice or both: (50 + 100) / 2, 30, or (50 + 100 + 30) / 3
    assert summary.over_videos == pytest.approx((30.0, 75.0))
    assert summary.to_dict()["over_runs"] == list(summary.over_runs)
