"""The priors of the filter: against loops over the training pairs."""

from __future__ import annotations

import numpy as np
import torch

from pps_fast.alignment.fit import fit_alignment, part_of_pairs
from pps_fast.config import AlignmentConfig, PlantedConfig
from pps_fast.data.synthetic import planted_data
from tests.support import alignment_oracle as oracle
from tests.support.compare import assert_agree

DATA = planted_data(PlantedConfig(num_videos=20, num_segments=20, frame_dim=6))
TRAIN = np.flatnonzero(DATA.split == "train")


def test_the_priors_are_the_mean_and_the_ridge_regression_of_the_cross_fitted_curves() -> None:
    options = AlignmentConfig(pooling="mean", position_prior=0.2, duration_prior=0.5)
    fitted = fit_alignment(DATA, TRAIN, options)
    y = oracle.sentences(DATA.word_ids, DATA.word_vectors, TRAIN)[TRAIN]
    part = part_of_pairs(DATA.sample_video[TRAIN], 4)
    videos = np.array([oracle.smoothed_video(video, 0.15) for video in DATA.features])[DATA.sample_video[TRAIN]]
    z = videos.mean(axis=1)
    maps = [oracle.fit_map(z[part != p], y[part != p]) for p in range(4)]
    zeta = np.array([oracle.zscore(x @ maps[p] @ one) for x, p, one in zip(videos, part, y, strict=True)])
    mean = zeta.mean(axis=0)
    moment = y.T @ y / len(y)
    ridge = np.trace(moment) / len(moment) * np.eye(len(moment))
    weights = np.linalg.inv(moment + ridge) @ y.T @ (zeta - mean) / len(y)
    assert_agree("mean", fitted.position_mean, torch.from_numpy(mean / mean.std()).float(), atol=1e-3)
    expected = torch.from_numpy(weights / np.sqrt(((y @ weights) ** 2).mean())).float()
    assert_agree("map", fitted.position_map, expected, rtol=1e-2, atol=1e-3)
    bounds = [oracle.filtered_moment(curve, extent=1.0, is_clipped=False) for curve in zeta]
    radii = np.array([(end - start) / 2 for start, end in bounds])
    assert_agree("log radius", fitted.log_radius, torch.tensor(np.log(radii).mean()).float(), atol=1e-3)


def test_without_priors_nothing_is_fitted_for_them() -> None:
    fitted = fit_alignment(DATA, TRAIN, AlignmentConfig())
    assert not fitted.position_mean.any() and not fitted.position_map.any() and fitted.log_radius == 0
