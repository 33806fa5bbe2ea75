"""The fit in closed form: against loops, in blocks, in any order of passes, and at its edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pps_fast.alignment import fit as module
from pps_fast.alignment.fit import fit_alignment, part_of_pairs, word_weights
from pps_fast.config import AlignmentConfig, PlantedConfig
from pps_fast.data.record import PreparedData
from pps_fast.data.synthetic import planted_data
from tests.support import alignment_oracle as oracle
from tests.support.compare import assert_agree

DATA = planted_data(PlantedConfig(num_videos=20, num_segments=20, frame_dim=6))
TRAIN = np.flatnonzero(DATA.split == "train")


def _oracle_map(
    data: PreparedData, train: np.ndarray, pooling: str, *, change: float = 0.0, **options: Any
) -> np.ndarray:
    y = oracle.sentences(data.word_ids, data.word_vectors, train)[train]
    videos = np.array([oracle.smoothed_video(video, 0.15) for video in data.features])
    if change:
        videos = np.array([oracle.with_changes(video, change) for video in videos])
    z = oracle.pooled_frames(videos, data.sample_video[train], y, pooling, **options)
    return oracle.fit_map(z, y)


@pytest.mark.parametrize("pooling", module.POOLINGS)
def test_the_map_is_that_of_the_loops(pooling: str) -> None:
    fitted = fit_alignment(DATA, TRAIN, AlignmentConfig(pooling=pooling))
    expected = torch.from_numpy(_oracle_map(DATA, TRAIN, pooling)).float()
    assert_agree("map", fitted.maps[-1], expected, rtol=1e-4, atol=1e-5)


def test_the_standardized_curve_divides_the_videos_otherwise_in_the_second_round() -> None:
    fitted = fit_alignment(DATA, TRAIN, AlignmentConfig(curve="standardized"))
    expected = torch.from_numpy(_oracle_map(DATA, TRAIN, "cross", by_neighbors=True)).float()
    assert_agree("map", fitted.maps[-1], expected, rtol=1e-4, atol=1e-5)
    linear = fit_alignment(DATA, TRAIN, AlignmentConfig())
    assert not torch.allclose(linear.maps[-1], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"parts": 3}, {"num_parts": 3}),
        ({"change": 0.4}, {"change": 0.4}),
        ({"pooling_curve": "standardized"}, {"is_standardized": True}),
    ],
)
def test_parts_changes_of_frames_and_the_curve_of_the_pooling_are_those_of_the_loops(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    fitted = fit_alignment(DATA, TRAIN, AlignmentConfig(**options))
    loops = torch.from_numpy(_oracle_map(DATA, TRAIN, "cross", **expected)).float()
    assert_agree("map", fitted.maps[-1], loops, rtol=1e-4, atol=1e-5)
    assert len(fitted.maps) == options.get("parts", 4) + 1
    default = fit_alignment(DATA, TRAIN, AlignmentConfig()).maps[-1]
    assert default.shape != loops.shape or not torch.allclose(default, loops, rtol=1e-3)


def test_the_same_pairs_give_the_same_bits_and_their_order_nothing_but_rounding() -> None:
    first, again = (fit_alignment(DATA, TRAIN, AlignmentConfig()) for _ in range(2))
    shuffled = fit_alignment(DATA, np.random.default_rng(0).permutation(TRAIN), AlignmentConfig())
    for name, value in vars(first).items():
        assert torch.equal(getattr(again, name), value), name
        assert_agree(name, getattr(shuffled, name), value, rtol=1e-4, atol=1e-6)


def test_times_and_lengths_change_nothing() -> None:
    other = replace(DATA, window_s=DATA.window_s * 0.5, duration_s=DATA.duration_s * 3)
    first, second = (fit_alignment(data, TRAIN, AlignmentConfig()) for data in (DATA, other))
    assert all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items())


def test_samples_outside_the_training_pairs_are_not_read() -> None:
    features = DATA.features.copy()
    features[np.setdiff1d(DATA.sample_video, DATA.sample_video[TRAIN])] = 9
    other = replace(DATA, features=features)
    first, second = (fit_alignment(data, TRAIN, AlignmentConfig()) for data in (DATA, other))
    assert all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items())


def test_the_map_of_a_part_does_not_depend_on_its_pairs_but_for_the_poolings() -> None:
    """With the mean of all frames there is nothing by which a pair could reach the map of its own part."""
    options = AlignmentConfig(pooling="mean")
    part = part_of_pairs(DATA.sample_video[TRAIN], 4)
    videos = np.unique(DATA.sample_video[TRAIN][part == 1])
    features = DATA.features.copy()
    features[videos] = np.random.default_rng(0).standard_normal(features[videos].shape)
    first, second = (fit_alignment(data, TRAIN, options) for data in (DATA, replace(DATA, features=features)))
    assert_agree("map of part 1", second.maps[1], first.maps[1], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(second.maps[0], first.maps[0], rtol=1e-2)


def test_word_weights_are_the_logs_of_inverse_frequencies_up_to_six() -> None:
    word_ids = np.array([[1, 2, 1, 0], [1, 3, 0, 0], [1, 2, 3, 3]])
    weights = word_weights(word_ids, 5)
    expected = torch.tensor([0.0, np.log(3 / 3), np.log(3 / 2), np.log(3 / 2), np.log(3)]).float()
    assert_agree("idf", weights, expected, atol=1e-6)
    many = np.ones((1000, 1), dtype=np.int64)
    many[0] = 2
    assert word_weights(many, 3)[2] == pytest.approx(6.0)


def test_vectors_of_sentences_take_the_place_of_words() -> None:
    vectors = np.random.default_rng(1).standard_normal((DATA.num_samples, 4)).astype(np.float32)
    fitted = fit_alignment(replace(DATA, sentence_vectors=vectors), TRAIN, AlignmentConfig())
    assert fitted.maps.shape == (5, 6, 4) and len(fitted.word_weights) == 0
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert_agree("mean", fitted.sentence_mean, torch.from_numpy(unit[TRAIN].mean(axis=0)), atol=1e-6)
    with pytest.raises(ValueError, match=r"no sentence vectors; prepare it with --sentence-vectors"):
        fit_alignment(DATA, TRAIN, AlignmentConfig(sentences="vectors"))


@pytest.mark.parametrize("pooling", module.POOLINGS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_fit_to_one_or_two_pairs_is_finite(pooling: str, count: int) -> None:
    fitted = fit_alignment(DATA, TRAIN[:count], AlignmentConfig(pooling=pooling))
    assert all(value.isfinite().all() for value in vars(fitted).values())


def test_videos_of_zeros_are_no_direction() -> None:
    fitted = fit_alignment(replace(DATA, features=np.zeros_like(DATA.features)), TRAIN, AlignmentConfig())
    assert not fitted.maps.any() and not fitted.spread.any()
