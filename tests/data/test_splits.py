"""Train, validation and test samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pps_fast.config import DataConfig, PlantedConfig
from pps_fast.data.splits import Splits, select_samples
from pps_fast.data.synthetic import planted_data

PLANTED = planted_data(PlantedConfig(num_videos=20, num_segments=16, frame_dim=4))
FOLDED = replace(PLANTED, fold=PLANTED.sample_video % 5)


def with_validation(data, videos):
    """Returns the data with the samples of some videos called validation."""
    return replace(data, split=np.where(np.isin(data.sample_video, videos), "validation", data.split))


def assert_disjoint_by_video(splits: Splits) -> None:
    sides = [set(PLANTED.sample_video[side].tolist()) for side in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, sides)) == len(set().union(*sides))


def test_the_files_own_splits_are_taken():
    splits = select_samples(PLANTED, DataConfig())
    np.testing.assert_array_equal(splits.train, np.flatnonzero(PLANTED.split == "train"))
    np.testing.assert_array_equal(splits.test, np.flatnonzero(PLANTED.split == "test"))
    assert splits.validation.size == 0
    assert {side.dtype for side in (splits.train, splits.validation, splits.test)} == {np.dtype(np.int64)}


def test_own_validation_split_wins_over_the_fraction():
    data = with_validation(PLANTED, [0, 1])
    splits = select_samples(data, DataConfig(validation_fraction=0.5))
    assert set(data.sample_video[splits.validation]) == {0, 1}
    assert not {0, 1} & set(data.sample_video[splits.train])


def test_fraction_holds_out_that_share_of_the_training_videos():
    splits = select_samples(PLANTED, DataConfig(validation_fraction=0.25))
    assert len(set(PLANTED.sample_video[splits.validation])) == 4  # of 16
    assert_disjoint_by_video(splits)
    whole = select_samples(PLANTED, DataConfig())
    np.testing.assert_array_equal(np.sort(np.concatenate([splits.train, splits.validation])), whole.train)
    np.testing.assert_array_equal(splits.test, whole.test)


def test_held_out_videos_do_not_depend_on_the_order_of_the_file():
    splits = select_samples(PLANTED, DataConfig(validation_fraction=0.25))
    chosen = {PLANTED.video_ids[video] for video in PLANTED.sample_video[splits.validation]}
    renumbered = replace(
        PLANTED, video_ids=PLANTED.video_ids[::-1], sample_video=len(PLANTED.video_ids) - 1 - PLANTED.sample_video
    )
    again = select_samples(renumbered, DataConfig(validation_fraction=0.25))
    assert {renumbered.video_ids[video] for video in renumbered.sample_video[again.validation]} == chosen


@pytest.mark.parametrize(("fraction", "held_out"), [(0.001, 1), (0.999, 15)])
def test_a_fraction_leaves_at_least_one_video_on_both_sides(fraction, held_out):
    splits = select_samples(PLANTED, DataConfig(validation_fraction=fraction))
    assert len(set(PLANTED.sample_video[splits.validation])) == held_out


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_folds_test_every_sample_once_and_never_split_a_video(fraction):
    tested = []
    for fold in range(5):
        splits = select_samples(FOLDED, DataConfig(fold=fold, validation_fraction=fraction))
        assert_disjoint_by_video(splits)
        parts = np.concatenate([splits.train, splits.validation, splits.test])
        np.testing.assert_array_equal(np.sort(parts), np.arange(FOLDED.num_samples))
        assert (splits.validation.size > 0) == (fraction > 0)
        tested.append(splits.test)
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(FOLDED.num_samples))


def test_samples_outside_the_folds_neither_train_nor_test():
    data = replace(FOLDED, fold=np.where(FOLDED.sample_video < 3, -1, FOLDED.fold))
    splits = select_samples(data, DataConfig(fold=1))
    assert not {0, 1, 2} & set(data.sample_video[np.concatenate([splits.train, splits.test])])


def test_validation_samples_of_the_file_do_not_train_under_folds():
    splits = select_samples(with_validation(FOLDED, [0, 1]), DataConfig(fold=1))
    assert set(FOLDED.sample_video[splits.validation]) == {0}
    assert 0 not in FOLDED.sample_video[splits.train]
    assert 1 in FOLDED.sample_video[splits.test]


@pytest.mark.parametrize(
    ("data", "config", "message"),
    [
        (PLANTED, DataConfig(fold=0), "no folds; prepare it with --folds"),
        (FOLDED, DataConfig(fold=5), r"--data\.fold \(--fold\) 5: expected one of the prepared folds 0, 1, 2, 3, 4"),
        (replace(PLANTED, split=np.full(120, "test")), DataConfig(), "train split is empty.*test 120 samples"),
        (replace(PLANTED, fold=np.zeros(120, np.int64)), DataConfig(fold=0), "train split is empty"),
        (replace(PLANTED, fold=np.arange(120) % 5), DataConfig(fold=0), "20 videos have samples in this fold and in"),
    ],
    ids=["no folds", "unknown fold", "no train", "one fold", "video in two folds"],
)
def test_impossible_choices_are_refused(data, config, message):
    with pytest.raises(ValueError, match=message):
        select_samples(data, config)


def test_training_needs_no_test_split():
    splits = select_samples(replace(PLANTED, split=np.full(120, "train")), DataConfig())
    assert len(splits.train) == 120 and len(splits.test) == 0


def test_scoring_needs_no_training_split():
    data = replace(PLANTED, split=np.full(120, "test"))
    for config in (DataConfig(), DataConfig(validation_fraction=0.5)):
        splits = select_samples(data, config, is_for_training=False)
        assert len(splits.test) == 120 and len(splits.train) == len(splits.validation) == 0
