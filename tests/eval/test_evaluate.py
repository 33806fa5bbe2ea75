"""Running a model over samples: deterministic, independent of batch-mates, beside blind baselines and control."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.eval.alignment_rows import ALIGNMENT_ROWS
from pps_fast.eval.blind import WHOLE_VIDEO
from pps_fast.eval.control import shuffle_queries
from pps_fast.eval.evaluate import evaluate, score
from pps_fast.eval.metrics import metric_means
from pps_fast.eval.report import format_markdown, format_table
from pps_fast.eval.results import HEADLINE, MODEL, SHUFFLED
from tests.support.eval_fakes import CONFIG, DATA, SPLITS, KnowsTheQuery, SeesOnlyTheVideo, store

LOWEST = override(CONFIG, {"inference.selector": "lowest_loss"})


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
