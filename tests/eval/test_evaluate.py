"""Running a model over samples: deterministic, independent of batch-mates, beside blind baselines and control."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import pps_fast.eval.evaluate as evaluate_module
from pps_fast.config_tree import override
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.eval.alignment_rows import ALIGNMENT_ROWS
from pps_fast.eval.blind import WHOLE_VIDEO
from pps_fast.eval.control import shuffle_queries
from pps_fast.eval.evaluate import evaluate, note_batch_memory, predict_samples, score
from pps_fast.eval.metrics import metric_means, sample_table
from pps_fast.eval.report import format_markdown, format_table
from pps_fast.eval.results import HEADLINE, MODEL, SHUFFLED
from pps_fast.files import Note
from pps_fast.model import PPS
from pps_fast.types import Prediction
from tests.support.compare import assert_agree
from tests.support.eval_fakes import CONFIG, DATA, SPLITS, KnowsTheQuery, SeesOnlyTheVideo, store

FIELDS = ("spans", "nll", "order", "votes", "top1")
LOWEST = override(CONFIG, {"inference.selector": "lowest_loss"})


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


def test_evaluation_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluate(KnowsTheQuery(), store(), SPLITS, CONFIG, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_perfect_model_beats_every_blind_row_and_its_control() -> None:
    report = evaluate(KnowsTheQuery(), store(), SPLITS, LOWEST, progress=False)
    assert report.rows[MODEL][HEADLINE].value == pytest.approx(100, abs=1e-4)
    assert report.rows[SHUFFLED][HEADLINE].value < 60
    for compared in (report.best_blind, report.control):
        verdicts = {metric: comparison.verdict for metric, comparison in compared.items() if metric.startswith("R@1")}
        assert len(verdicts) == 4
        assert all(verdict.startswith("better by") for verdict in verdicts.values()), verdicts


def test_model_that_ignores_the_query_equals_its_control() -> None:
    report = evaluate(SeesOnlyTheVideo(), store(), SPLITS, CONFIG, progress=False)
    assert report.rows[MODEL] == report.rows[SHUFFLED]
    assert all(comparison.verdict.startswith("not distinguishable") for comparison in report.control.values())


def test_control_keeps_video_and_truth_and_asks_other_videos_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = []
    data = store()
    original = type(data).batch

    def spy(self, samples, *, videos=None, **options):
        pairs.append((samples, videos))
        return original(self, samples, videos=videos, **options)

    monkeypatch.setattr(type(data), "batch", spy)
    evaluate(KnowsTheQuery(), data, SPLITS, CONFIG, progress=False)
    asked, shown = (np.concatenate([pair[part] for pair in pairs if pair[1] is not None]) for part in (0, 1))
    assert (DATA.sample_video[asked] != shown).all()
    video = DATA.sample_video[SPLITS.test]
    expected = zip(SPLITS.test[shuffle_queries(video, CONFIG.inference.seed)].tolist(), video.tolist(), strict=True)
    # batches are filled up with repeated samples
    pairs = set(zip(asked.tolist(), shown.tolist(), strict=True))
    assert pairs == set(expected) and len(pairs) == len(SPLITS.test)
    assert sorted(sample for sample, _ in pairs) == SPLITS.test.tolist()


def test_best_blind_row_of_each_metric_is_the_highest_one() -> None:
    report = evaluate(SeesOnlyTheVideo(), store(), SPLITS, CONFIG, progress=False)
    blind = {
        name: estimates for name, estimates in report.rows.items() if name not in (MODEL, SHUFFLED, *ALIGNMENT_ROWS)
    }
    assert list(blind) == list(report.intervals) and WHOLE_VIDEO in blind
    for metric, compared in report.best_blind.items():
        best = max(estimates[metric].value for estimates in blind.values() if metric in estimates)
        assert blind[compared.row][metric].value == best
        assert compared.difference.value == pytest.approx(report.rows[MODEL][metric].value - best)


def test_blind_rows_are_fitted_on_training_pairs_only() -> None:
    reports = [
        evaluate(KnowsTheQuery(), store(), replace(SPLITS, test=test), CONFIG, progress=False)
        for test in (SPLITS.test[:12], SPLITS.test[12:])
    ]
    assert reports[0].intervals == reports[1].intervals
    other = evaluate(KnowsTheQuery(), store(), replace(SPLITS, train=SPLITS.train[:30]), CONFIG, progress=False)
    assert other.intervals != reports[0].intervals


def test_report_carries_counts_and_settings() -> None:
    report = evaluate(KnowsTheQuery(), store(), SPLITS, CONFIG, split="train", progress=False)
    assert report.split == "train"
    assert report.num_samples == report.num_fit_samples == len(SPLITS.train)
    assert report.num_videos == len(np.unique(DATA.sample_video[SPLITS.train]))
    assert (report.name, report.protocol) == (DATA.provenance["name"], DATA.provenance["protocol"])
    assert (report.num_proposals, report.selector) == (3, "vote_loss_weighted")


def test_score_gives_the_means_of_the_report() -> None:
    report = evaluate(SeesOnlyTheVideo(), store(), SPLITS, CONFIG, progress=False)
    metrics = score(SeesOnlyTheVideo(), store(), SPLITS.test, CONFIG)
    assert metrics == pytest.approx({metric: estimate.value for metric, estimate in report.rows[MODEL].items()})


def test_single_video_is_scored_without_a_control() -> None:
    video = DATA.sample_video[SPLITS.test[0]]
    test = SPLITS.test[DATA.sample_video[SPLITS.test] == video]
    report = evaluate(KnowsTheQuery(), store(), replace(SPLITS, test=test), CONFIG, progress=False)
    assert SHUFFLED not in report.rows and report.control == {}
    assert report.num_videos == 1


def test_unknown_or_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split = 'tests': expected one of train, validation, test"):
        evaluate(KnowsTheQuery(), store(), SPLITS, CONFIG, split="tests")
    nothing = Splits(train=SPLITS.train, validation=np.zeros(0, dtype=np.int64), test=SPLITS.test)
    with pytest.raises(ValueError, match="the validation split is empty"):
        evaluate(KnowsTheQuery(), store(), nothing, CONFIG, split="validation")
    with pytest.raises(ValueError, match="no samples"):
        score(KnowsTheQuery(), store(), nothing.validation, CONFIG)


def test_every_row_is_the_mean_of_its_table() -> None:
    report = evaluate(SeesOnlyTheVideo(), store(), SPLITS, CONFIG, progress=False)
    assert report.tables.keys() == report.rows.keys() >= {MODEL, SHUFFLED, WHOLE_VIDEO}
    for name, table in report.tables.items():
        means = metric_means(table, CONFIG.inference.iou_thresholds)
        assert means == {metric: estimate.value for metric, estimate in report.rows[name].items()}


def _timed(is_timed: np.ndarray) -> Store:
    """The planted data with the times of some samples only."""
    kept = is_timed[DATA.window_sample]
    return Store(replace(DATA, window_s=DATA.window_s[kept], window_sample=DATA.window_sample[kept]))


def test_without_training_times_the_model_scores_the_same_and_baselines_are_fitted_on_other_videos() -> None:
    expected = evaluate(SeesOnlyTheVideo(), store(), SPLITS, CONFIG, progress=False)
    is_test = np.isin(np.arange(DATA.num_samples), SPLITS.test)
    report = evaluate(SeesOnlyTheVideo(), _timed(is_test), SPLITS, CONFIG, progress=False)
    for row in (MODEL, SHUFFLED, WHOLE_VIDEO):
        assert report.rows[row] == expected.rows[row]
    assert report.rows.keys() == expected.rows.keys() and report.num_fit_samples == 0
    assert report.intervals == {WHOLE_VIDEO: [[0.0, 1.0]]}
    assert "fitted on the scored pairs of the other videos (5 folds by video)" in format_table(report)


def test_one_video_without_training_times_has_the_whole_video_as_its_only_blind_baseline() -> None:
    is_test = np.isin(np.arange(DATA.num_samples), SPLITS.test)
    test = SPLITS.test[DATA.sample_video[SPLITS.test] == DATA.sample_video[SPLITS.test[0]]]
    splits = replace(SPLITS, test=test)
    report = evaluate(SeesOnlyTheVideo(), _timed(is_test), splits, CONFIG, progress=False)
    assert set(report.best_blind) == {metric for metric in report.rows[MODEL] if metric.startswith("R@1")}
    assert "R@3, % [95 %]" in format_table(report)


def test_samples_without_times_are_answered_counted_and_not_scored() -> None:
    is_timed = np.arange(DATA.num_samples) % 3 > 0
    report = evaluate(SeesOnlyTheVideo(), _timed(is_timed), SPLITS, CONFIG, progress=False)
    scored = SPLITS.test[is_timed[SPLITS.test]]
    assert (report.num_samples, report.num_unscored) == (len(scored), len(SPLITS.test) - len(scored))
    assert len(report.answers.prediction.top1) == len(SPLITS.test)
    alone = evaluate(SeesOnlyTheVideo(), store(), replace(SPLITS, test=scored), CONFIG, progress=False)
    assert report.rows[MODEL] == alone.rows[MODEL] and report.rows[SHUFFLED] == alone.rows[SHUFFLED]
    assert f"{report.num_unscored} pairs of the split have no times" in format_table(report)


def test_where_no_sample_has_times_there_are_answers_and_no_score() -> None:
    nothing = _timed(np.zeros(DATA.num_samples, dtype=bool))
    report = evaluate(SeesOnlyTheVideo(), nothing, SPLITS, CONFIG, progress=False)
    assert report.rows == {} and report.num_unscored == len(SPLITS.test)
    for text in (format_table(report), format_markdown(report), json.dumps(report.to_dict())):
        assert "No pair of the test split has times" in text
    with pytest.raises(ValueError, match="no sample has times"):
        score(SeesOnlyTheVideo(), nothing, SPLITS.test, CONFIG)


def test_batches_far_beyond_the_free_memory_are_refused_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    size = store().sizes
    logits = CONFIG.proposals.num_proposals * DATA.word_ids.shape[1] * size.vocab_size
    needed = 4 * 1000 * (size.num_segments * size.frame_dim + logits)
    config = override(CONFIG, {"inference.batch_size": 1000})
    monkeypatch.setattr(evaluate_module, "free_memory_of", lambda device: needed)
    note_batch_memory(config, store())
    monkeypatch.setattr(evaluate_module, "free_memory_of", lambda device: needed - 1)
    with pytest.warns(Note, match=r"^an evaluation batch of 1,000 samples needs about .*; lower inference\.batch_size"):
        note_batch_memory(config, store())
    monkeypatch.setattr(evaluate_module, "free_memory_of", lambda device: needed // 5)
    with pytest.raises(ValueError, match=r"^an evaluation batch of 1,000 samples .*; lower inference\.batch_size$"):
        predict_samples(SeesOnlyTheVideo(), store(), SPLITS.test, config)
