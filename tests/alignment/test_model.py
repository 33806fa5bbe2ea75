"""The alignment as a model: curves of a batch, cross-fitted or not, and answers like every other model's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pps_fast.alignment.fit import fit_alignment, part_of_pairs
from pps_fast.alignment.model import Alignment, AlignmentModel
from pps_fast.config import AlignmentConfig, PlantedConfig
from pps_fast.config_tree import override
from pps_fast.data.store import Store
from pps_fast.data.synthetic import planted_data
from pps_fast.eval.predictions import predict_samples
from pps_fast.predict import temporal_iou
from pps_fast.presets import PRESETS
from tests.support import alignment_oracle as oracle
from tests.support.compare import assert_agree

DATA = planted_data(PlantedConfig(num_videos=30, num_segments=20, frame_dim=8))
TRAIN, TEST = np.flatnonzero(DATA.split == "train"), np.flatnonzero(DATA.split == "test")


def _alignment(options: AlignmentConfig, data=DATA) -> Alignment:
    alignment = Alignment(options, data.sizes)
    alignment.take(fit_alignment(data, TRAIN, options))
    return alignment.double()


def test_the_linear_curve_of_a_batch_is_that_of_the_loops() -> None:
    alignment = _alignment(AlignmentConfig())
    curve = alignment(Store(DATA).batch(TEST, seed=0))
    y = oracle.sentences(DATA.word_ids, DATA.word_vectors, TRAIN)
    matrix = alignment.maps[-1].numpy()
    for row, sample in enumerate(TEST):
        frames = oracle.smoothed_video(DATA.features[DATA.sample_video[sample]], 0.15)
        expected = torch.from_numpy(frames @ matrix @ y[sample])
        assert_agree(f"sample {sample}", curve[row], expected, rtol=1e-4, atol=1e-5)


def test_the_standardized_curve_is_divided_by_the_spread_over_training_sentences() -> None:
    alignment = _alignment(AlignmentConfig(curve="standardized"))
    curve = alignment(Store(DATA).batch(TEST[:5], seed=0))
    y = oracle.sentences(DATA.word_ids, DATA.word_vectors, TRAIN)
    matrix = alignment.maps[-1].numpy()
    videos = np.unique(DATA.sample_video[TRAIN])
    mean = np.concatenate([oracle.smoothed_video(DATA.features[v], 0.15) for v in videos]).mean(axis=0)
    for row, sample in enumerate(TEST[:5]):
        away = oracle.smoothed_video(DATA.features[DATA.sample_video[sample]], 0.15) - mean
        scores = away @ matrix @ y[TRAIN].T
        expected = (away @ matrix @ y[sample]) / np.sqrt((scores**2).mean(axis=1))
        assert_agree(f"sample {sample}", curve[row], torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_in_training_a_pair_is_scored_by_the_map_without_its_part() -> None:
    alignment, store = _alignment(AlignmentConfig()), Store(DATA)
    parts = np.full(DATA.num_samples, 4)
    parts[TRAIN] = part_of_pairs(DATA.sample_video[TRAIN], 4)
    store.set_parts(parts)
    batch = store.batch(TRAIN[:9], seed=0)
    cross_fitted = alignment(batch, is_cross_fitted=True)
    for row, part in enumerate(batch.part.tolist()):
        alone = _alignment(AlignmentConfig())
        alone.maps[-1] = alignment.maps[part]
        assert_agree(f"row {row}", cross_fitted[row], alone(batch)[row], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(cross_fitted, alignment(batch))


@pytest.mark.parametrize("use_vectors", [False, True])
def test_a_sentence_without_known_words_has_a_curve_of_zeros(use_vectors: bool) -> None:
    vectors = np.random.default_rng(0).standard_normal((DATA.num_samples, 5)).astype(np.float32)
    data = replace(DATA, sentence_vectors=vectors) if use_vectors else DATA
    batch = Store(data).batch(TEST[:3], seed=0)
    blank = replace(batch, word_ids=torch.zeros_like(batch.word_ids), words=torch.zeros_like(batch.words))
    if use_vectors:
        blank = replace(blank, sentence=torch.zeros_like(batch.sentence))
    assert not _alignment(AlignmentConfig(), data)(blank).any()


def test_autocast_does_not_round_a_curve() -> None:
    alignment, batch = _alignment(AlignmentConfig()).float(), Store(DATA).batch(TEST[:3], seed=0)
    expected = alignment(batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(alignment(batch), expected)


@pytest.mark.parametrize("reading", ["filter", "window"])
def test_answers_of_planted_queries_beat_those_about_other_videos(reading: str) -> None:
    config = override(PRESETS["alignment"], {"alignment.reading": reading})
    model = AlignmentModel(config, DATA.sizes)
    model.alignment.take(fit_alignment(DATA, TRAIN, config.alignment))
    truth, store = torch.from_numpy(DATA.moment[TEST]), Store(DATA)
    answers = predict_samples(model, store, TEST, config)
    elsewhere = predict_samples(model, store, TEST, config, videos=np.roll(DATA.sample_video[TEST], 6))
    overlaps = [temporal_iou(moments.top1.double(), truth).mean() for moments in (answers, elsewhere)]
    assert overlaps[0] > overlaps[1] + 0.1
    assert answers.spans.shape == (len(TEST), 5, 2) and (answers.nll.diff(dim=1) >= 0).all()
    assert torch.equal(answers.top1, answers.spans[:, 0])


def test_vectors_of_sentences_are_missed_in_words() -> None:
    vectors = np.random.default_rng(0).standard_normal((DATA.num_samples, 5)).astype(np.float32)
    alignment = _alignment(AlignmentConfig(), replace(DATA, sentence_vectors=vectors))
    with pytest.raises(ValueError, match="fitted to vectors of sentences, and this data set has none"):
        alignment(Store(DATA).batch(TEST[:2], seed=0))


def test_the_position_prior_draws_flat_curves_to_where_training_curves_are_high() -> None:
    alignment = _alignment(AlignmentConfig(position_prior=5.0))
    alignment.position_mean = torch.linspace(-1, 1, 20).double()
    alignment.position_map = torch.zeros_like(alignment.position_map)
    sentence = torch.zeros(2, alignment.sentence_mean.shape[0]).double()
    curve = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 20)))
    moments = alignment.read(torch.cat([curve, torch.zeros(1, 20).double()]), sentence, 1)
    assert moments.end[0, 0] == 1 and moments.start[0, 0] > 0.3
    # the prior alone is no answer
    assert (moments.start[1, 0], moments.end[1, 0]) == (0, 1)
