"""Answers to samples: the same whatever the batch they are in, and whoever computes it."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

import pps_fast.eval.predictions as predictions_module
from pps_fast.config_tree import override
from pps_fast.eval.metrics import sample_table
from pps_fast.eval.predictions import note_batch_memory, predict_samples
from pps_fast.files import Note
from pps_fast.model import PPS
from pps_fast.types import Prediction
from tests.support.compare import assert_agree
from tests.support.eval_fakes import CONFIG, DATA, SPLITS, KnowsTheQuery, SeesOnlyTheVideo, store
from tests.support.thread_world import in_threads

FIELDS = ("spans", "nll", "order", "votes", "top1")


def _in_parts(model, samples: np.ndarray, size: int, config=CONFIG) -> Prediction:
    """Predicts `size` samples at a time, each time as if there were no others."""
    starts = range(0, len(samples), size)
    parts = [predict_samples(model, store(), samples[at : at + size], config) for at in starts]
    return Prediction(**{name: torch.cat([getattr(part, name) for part in parts]) for name in FIELDS})


@pytest.fixture(scope="module")
def pps() -> PPS:
    torch.manual_seed(3)
    model = PPS(CONFIG, DATA.sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            # larger than at the start of training, so that samples differ
            parameter *= 2.0 if parameter.dim() > 1 else 1.0
    return model


@pytest.mark.parametrize("size", [1, 7, 32])
def test_sample_alone_in_seven_and_in_thirty_two_is_bitwise_the_same(pps: PPS, size: int) -> None:
    config = override(CONFIG, {"inference.batch_size": 32})
    samples = SPLITS.test[:32]
    together = predict_samples(pps, store(), samples, config)
    assert together.spans.std(dim=0).min() > 1e-4, "all samples get the same answer; the test would see nothing"
    parts = _in_parts(pps, samples, size, config)
    for name in FIELDS:
        assert_agree(name, getattr(parts, name), getattr(together, name))


def test_batch_mates_and_their_order_change_nothing(pps: PPS) -> None:
    samples = SPLITS.test[:20]
    shuffled = np.random.default_rng(0).permutation(20)
    expected = predict_samples(pps, store(), samples, CONFIG)
    prediction = predict_samples(pps, store(), samples[shuffled], CONFIG)
    for name in FIELDS:
        assert_agree(name, getattr(prediction, name), getattr(expected, name)[shuffled])


def test_configured_batch_size_changes_rounding_and_no_decision(pps: PPS) -> None:
    truth = torch.from_numpy(DATA.moment[SPLITS.test])
    expected = predict_samples(pps, store(), SPLITS.test, CONFIG)
    for size in (1, 7):
        prediction = predict_samples(pps, store(), SPLITS.test, override(CONFIG, {"inference.batch_size": size}))
        assert_agree("spans", prediction.spans, expected.spans, atol=1e-5)
        assert_agree("order", prediction.order, expected.order)
        assert_agree("answer", prediction.votes.argmax(1), expected.votes.argmax(1))
        overlaps = [sample_table(one, truth).iou_top1 for one in (prediction, expected)]
        assert_agree("recall", overlaps[0] >= 0.5, overlaps[1] >= 0.5)


def test_every_call_has_one_shape_no_negatives_and_no_dropout() -> None:
    model = KnowsTheQuery()
    model.train()
    model.dropout.eval()
    samples = SPLITS.test[:18]
    predict_samples(model, store(), samples, CONFIG)
    assert set(model.calls) == {(16, False, False)}
    assert model.training and not model.dropout.training
    # no more batches than it takes to keep sentences of one number of columns together
    numbers = np.unique(store().num_columns(samples), return_counts=True)[1]
    assert len(model.calls) == sum(-(-number // 16) for number in numbers)


def test_a_samples_columns_are_its_own_whatever_it_is_asked_with() -> None:
    model, samples = KnowsTheQuery(), SPLITS.test[:18]
    predict_samples(model, store(), samples, CONFIG)
    expected = dict(zip(samples.tolist(), store().num_columns(samples).tolist(), strict=True))
    assert model.columns == expected and len(set(expected.values())) > 1


def test_training_mode_comes_back_after_an_error() -> None:
    model = KnowsTheQuery()
    with pytest.raises(ValueError, match="Store.batch: samples holds"):
        predict_samples(model, store(), np.array([DATA.num_samples]), CONFIG)
    assert model.training and model.dropout.training


def test_predictions_are_clipped_to_the_video() -> None:
    prediction = predict_samples(SeesOnlyTheVideo(), store(), SPLITS.test, CONFIG)
    for spans in (prediction.spans, prediction.top1):
        assert spans.min() >= 0 and spans.max() == 1


def test_hidden_words_come_from_the_evaluation_seed() -> None:
    runs = []
    for seed in (0, 0, 1):
        model = KnowsTheQuery()
        predict_samples(model, store(), SPLITS.test[:4], override(CONFIG, {"inference.seed": seed}))
        runs.append(torch.stack([model.noise[sample] for sample in SPLITS.test[:4].tolist()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_batches_far_beyond_the_free_memory_are_refused_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    size = store().sizes
    logits = CONFIG.proposals.num_proposals * DATA.word_ids.shape[1] * size.vocab_size
    needed = 4 * 1000 * (size.num_segments * size.frame_dim + logits)
    config = override(CONFIG, {"inference.batch_size": 1000})
    monkeypatch.setattr(predictions_module, "free_memory_of", lambda device: needed)
    note_batch_memory(config, store())
    monkeypatch.setattr(predictions_module, "free_memory_of", lambda device: needed - 1)
    with pytest.warns(Note, match=r"^an evaluation batch of 1,000 samples needs about .*; lower inference\.batch_size"):
        note_batch_memory(config, store())
    monkeypatch.setattr(predictions_module, "free_memory_of", lambda device: needed // 5)
    with pytest.raises(ValueError, match=r"^an evaluation batch of 1,000 samples .*; lower inference\.batch_size$"):
        predict_samples(SeesOnlyTheVideo(), store(), SPLITS.test, config)


@pytest.mark.parametrize("count", [1, 33])
def test_processes_that_divide_the_batches_get_the_same_bits(pps: PPS, count: int) -> None:
    # sentences of a few numbers of columns in batches of 16: one batch, of which two processes have none, or several
    samples = SPLITS.test[:count]
    expected = predict_samples(pps, store(), samples, CONFIG)
    # threads would switch the modes of one model
    models = [deepcopy(pps) for _ in range(3)]
    for prediction in in_threads(
        3, lambda world: predict_samples(models[world.place.rank], store(), samples, CONFIG, world=world)
    ):
        for name in FIELDS:
            assert_agree(name, getattr(prediction, name), getattr(expected, name))
