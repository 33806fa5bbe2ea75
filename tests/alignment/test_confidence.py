"""Confidence: evidence by its formula, a logistic function that is the best of its kind, and honest calibration."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pps_fast.alignment.confidence import (
    Confidence,
    _answers,
    calibration_error,
    clarity_evidence,
    fit_confidence,
    fit_logistic,
    match_evidence,
)
from pps_fast.alignment.fit import fit_alignment
from pps_fast.alignment.model import Alignment, AlignmentModel
from pps_fast.config import AlignmentConfig
from pps_fast.types import FeatureSizes
from tests.support.eval_fakes import DATA, SPLITS
from tests.support.grounders import ALIGNMENT


def _fitted(samples: np.ndarray) -> AlignmentModel:
    model = AlignmentModel(ALIGNMENT, DATA.sizes)
    model.alignment.take(fit_alignment(DATA, samples, ALIGNMENT.alignment))
    return model


@pytest.mark.parametrize("kind", ["linear", "standardized"])
def test_match_evidence_is_how_far_the_moment_is_above_the_mean_frame(kind: str) -> None:
    alignment = Alignment(
        AlignmentConfig(curve=kind), FeatureSizes(frame_dim=2, word_dim=1, vocab_size=1, num_segments=5)
    )
    alignment.frame_mean = torch.tensor([0.25, 0.5])
    curve = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]])
    start, end = torch.tensor([[0.2, 0.0, 0.41, 0.95]]), torch.tensor([[0.6, 1.0, 0.42, 1.0]])
    direction = torch.tensor([[3.0, 4.0]])
    # frames 1 and 2; all; none has its middle inside, so the one that follows; the last
    expected = torch.tensor([[3.0, 6.2, 4.0, 16.0]], dtype=torch.float64)
    # the mean frame scores 0.75 + 2
    expected = (expected - 2.75 * (kind == "linear")) / 5
    assert_close = torch.testing.assert_close
    assert_close(match_evidence(alignment, curve, start, end, direction), expected, rtol=1e-6, atol=1e-7)
    assert not match_evidence(alignment, curve, start, end, 0 * direction).any()


def test_clarity_evidence_is_the_largest_sum_of_deviations() -> None:
    curves = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for curve, value in zip(curves, clarity_evidence(curves), strict=True):
        away = curve - curve.mean()
        sums = [away[a:b].sum() for a in range(7) for b in range(a + 1, 8)]
        assert value.item() == pytest.approx(max(sums).item() / 7)


def test_the_logistic_function_recovers_the_one_that_drew_the_answers() -> None:
    rng = np.random.default_rng(0)
    # normal evidence of both kinds, one standard deviation apart: slope and intercept are known
    matched = torch.from_numpy(rng.normal(1.5, 2.0, 40_000))
    other = torch.from_numpy(rng.normal(-0.5, 2.0, 20_000))
    slope, intercept = fit_logistic(matched, other)
    assert slope == pytest.approx(0.5, abs=0.02) and intercept == pytest.approx(-0.25, abs=0.02)
    error = calibration_error(*(torch.sigmoid(slope * kind + intercept) for kind in (matched, other)))
    assert error < 0.01


def test_separable_and_constant_evidence_have_finite_answers() -> None:
    slope, intercept = fit_logistic(torch.ones(5).double(), -torch.ones(5).double())
    assert 0 < slope < 20 and math.isfinite(intercept)
    assert fit_logistic(torch.ones(5), torch.ones(5)) == (0.0, 0.0)


def test_the_calibration_error_of_certainty_about_nothing_is_one_half() -> None:
    assert calibration_error(torch.ones(50), torch.ones(70)) == pytest.approx(0.5)
    assert calibration_error(torch.full((50,), 0.5), torch.full((70,), 0.5)) == pytest.approx(0.0, abs=1e-6)


def test_a_fitted_model_tells_own_videos_of_planted_data_from_others_and_reads_no_times() -> None:
    model = _fitted(SPLITS.train)
    confidence = fit_confidence(model.alignment, DATA, SPLITS.train)
    assert confidence is not None and confidence.num_pairs == len(SPLITS.train)
    assert confidence.auc > 0.6 and confidence.slope > 0 and 0 <= confidence.calibration_error < 0.2
    assert 0 < confidence.median_moment_s < DATA.duration_s.max()
    assert list(confidence.clarity_quantiles) == sorted(confidence.clarity_quantiles)
    without = replace(DATA, window_s=DATA.window_s[:0], window_sample=DATA.window_sample[:0])
    assert fit_confidence(model.alignment, without, SPLITS.train) == confidence


def test_probabilities_of_unseen_videos_are_near_the_frequencies() -> None:
    confidence = fit_confidence(_fitted(SPLITS.train).alignment, DATA, SPLITS.train)
    assert confidence is not None
    alignment, video = _fitted(SPLITS.train).alignment, DATA.sample_video[SPLITS.test]
    part = np.zeros(len(video), dtype=np.int64)
    both = video, np.roll(video, len(video) // 2)
    kinds = [_answers(alignment, DATA, SPLITS.test, part, videos)[0] for videos in both]
    assert calibration_error(*map(confidence.match, kinds)) < 0.2


def test_a_single_video_cannot_calibrate() -> None:
    one = SPLITS.train[DATA.sample_video[SPLITS.train] == 0]
    assert fit_confidence(_fitted(one).alignment, DATA, one) is None


def test_clarity_is_the_rank_among_training_pairs() -> None:
    confidence = Confidence(
        slope=1.0,
        intercept=0.0,
        clarity_quantiles=(0.0, 1.0, 4.0),
        median_moment_s=1.0,
        num_pairs=1,
        num_others=1,
        auc=0.5,
        calibration_error=0.0,
    )
    rank = confidence.clarity(torch.tensor([-1.0, 0.5, 2.5, 9.0]))
    torch.testing.assert_close(rank, torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64))
