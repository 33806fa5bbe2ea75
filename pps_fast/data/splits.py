"""Divides samples into train, validation and test splits; all samples of a video are in one split.

Letters: M samples of the data set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from pps_fast.config import DataConfig
from pps_fast.data.record import PreparedSamples


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Disjoint sets of samples, each an increasing int64 array of sample indices.

    Attributes:
        train: samples of the loss, and of the fit of the blind baselines.
        validation: samples that may choose a checkpoint; can be empty.
        test: samples of the reported numbers, and of nothing else; can be empty, which nothing can then be reported on.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def select_samples(data: PreparedSamples, config: DataConfig, *, is_for_training: bool = True) -> Splits:
    """Divides the samples as `config` asks.

    Without `config.fold` the file's own splits are taken. With it, that fold is the test split and the samples of the
    other folds train. Validation samples are those of the file's validation split (outside the tested fold). If it has
    none, `config.validation_fraction` of the training videos is held out, by a hash of their names.

    Args:
        is_for_training: whether samples to train on are needed.
    Raises:
        ValueError: for a fold that is not in the file, a video on both sides of it, or an empty train split.
    """
    if config.fold is None:
        train, validation, test = (data.split == name for name in ("train", "validation", "test"))
    else:
        train, validation, test = _select_fold(data, config.fold)
    if not validation.any() and config.validation_fraction > 0:
        validation = train & _hold_out_videos(data, train, config.validation_fraction)
        train = train & ~validation
    if is_for_training:
        _require_samples(data, "train", train)
    return Splits(
        train=np.flatnonzero(train).astype(np.int64),
        validation=np.flatnonzero(validation).astype(np.int64),
        test=np.flatnonzero(test).astype(np.int64),
    )


def _select_fold(data: PreparedSamples, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns train, validation and test as [M] bool."""
    folds = np.unique(data.fold[data.fold >= 0]).tolist()
    if not folds:
        raise ValueError(
            f"--data.fold (--fold) {fold}: the data set has no folds; prepare it with --folds, or leave the fold out"
        )
    if fold not in folds:
        raise ValueError(
            f"--data.fold (--fold) {fold}: expected one of the prepared folds {', '.join(map(str, folds))}"
        )
    test = data.fold == fold
    validation = (data.split == "validation") & ~test
    train = (data.fold >= 0) & ~test & ~validation
    crossing = np.intersect1d(data.sample_video[train], data.sample_video[test])
    if len(crossing):
        raise ValueError(
            f"--data.fold (--fold) {fold}: {len(crossing)} videos have samples in this fold and in another, "
            f"the first is {data.video_ids[crossing[0]]!r}; prepare the data set again with --folds"
        )
    return train, validation, test


def _hold_out_videos(data: PreparedSamples, train: np.ndarray, fraction: float) -> np.ndarray:
    """Returns [M] bool: samples of the held-out videos, at least one video and never all of them."""
    videos = np.unique(data.sample_video[train])
    count = min(max(round(fraction * len(videos)), 1), len(videos) - 1)
    # ordered by the hash of the name, so the choice depends neither on the file's order nor on a seed
    ordered = sorted(videos, key=lambda video: hashlib.sha256(data.video_ids[video].encode()).digest())
    return np.isin(data.sample_video, ordered[: max(count, 0)])


def _require_samples(data: PreparedSamples, name: str, chosen: np.ndarray) -> None:
    if chosen.any():
        return
    names, counts = np.unique(data.split, return_counts=True)
    present = ", ".join(f"{label} {count}" for label, count in zip(names.tolist(), counts.tolist(), strict=True))
    raise ValueError(
        f"the {name} split is empty; the data set has {present} samples: "
        "choose a prepared fold with --data.fold, or prepare the data set with that split"
    )
