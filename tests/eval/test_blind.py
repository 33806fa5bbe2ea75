"""Fixed intervals: exhaustive on a grid, and the known scores of the real annotations."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from pps_fast.eval.blind import (
    NUM_FOLDS,
    WHOLE_VIDEO,
    blind_table,
    cross_fit_baselines,
    fit_blind_baselines,
    fit_interval_set,
    fit_single_intervals,
    interval_grid,
    random_table,
)
from pps_fast.eval.metrics import metric_means
from pps_fast.predict import temporal_iou
from tests.support.compare import assert_agree
from tests.support.shared import shared_path

THRESHOLDS = (0.3, 0.5, 0.7)


def _moments(count: int, seed: int = 0) -> Tensor:
    drawn = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.sort(dim=1).values


def _charades(split: str) -> Tensor:
    path = shared_path(f"data/charades_sta/pps_{split}.json")
    rows = json.loads(path.read_text(encoding="utf-8"))
    # in float64: some overlaps are exactly a threshold
    moments = [[time / duration for time in moment] for _, duration, moment, _ in rows]
    return torch.tensor(moments, dtype=torch.float64).clamp(0, 1)


def test_grid_holds_every_interval_once() -> None:
    grid = interval_grid(0.25)
    expected = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    assert_agree("grid", grid, torch.tensor(expected, dtype=torch.float64) / 4)
    assert len(interval_grid()) == 51 * 50 // 2


def test_single_intervals_are_the_best_of_the_grid() -> None:
    # more moments than are compared with the grid at a time
    moments = _moments(2100)
    rows = fit_single_intervals(moments, (0.5,))
    overlap = torch.stack([temporal_iou(interval, moments) for interval in interval_grid()])
    scores = {"fixed interval, IoU>=0.5": (overlap >= 0.5).double().mean(1), "fixed interval, mIoU": overlap.mean(1)}
    assert rows.keys() == scores.keys()
    for name, score in scores.items():
        assert_agree(name, rows[name], interval_grid()[score.argmax()])


def test_interval_set_finds_separate_clusters() -> None:
    centers = torch.tensor([[0.0, 0.1], [0.3, 0.5], [0.8, 1.0]], dtype=torch.float64)
    moments = centers.repeat(20, 1)
    fitted = fit_interval_set(moments, 0.7, 3)
    table = blind_table(fitted, moments)
    assert metric_means(table, (0.7,))["R@3 IoU>=0.7"] == 100.0


def test_exchanges_reach_what_no_single_exchange_improves() -> None:
    moments = _moments(300, seed=3)
    fitted = fit_interval_set(moments, 0.5, 3)
    reached = metric_means(blind_table(fitted, moments), (0.5,))["R@3 IoU>=0.5"]
    hits = torch.stack([temporal_iou(interval, moments) >= 0.5 for interval in interval_grid()])
    for position in range(3):
        others = torch.cat([fitted[:position], fitted[position + 1 :]])
        covered = (temporal_iou(others[:, None], moments[None]) >= 0.5).any(0)
        best = (hits | covered).double().mean(1).max().item()
        assert 100 * best <= reached + 1e-9


def test_rows_are_the_whole_video_and_one_fit_for_every_metric() -> None:
    rows = fit_blind_baselines(_moments(50), THRESHOLDS, 5)
    metrics = [f"IoU>={m}" for m in THRESHOLDS]
    single = [f"fixed interval, {metric}" for metric in [*metrics, "mIoU"]]
    assert list(rows) == [WHOLE_VIDEO, *single, *(f"5 fixed intervals, {metric}" for metric in metrics)]
    assert [len(guesses) for guesses in rows.values()] == [1] * 5 + [5] * 3
    assert all(len(guesses) == 1 for guesses in fit_blind_baselines(_moments(50), THRESHOLDS, 1).values())


def test_single_guess_has_no_recall_at_five_and_a_set_no_recall_at_one() -> None:
    moments = _moments(8)
    single = blind_table(torch.tensor([[0.0, 1.0]], dtype=torch.float64), moments)
    assert single.iou_topn is None
    assert_agree("length", single.iou_top1, moments[:, 1] - moments[:, 0], atol=1e-9)
    several = blind_table(_moments(5, seed=1), moments)
    assert several.iou_top1 is None
    expected = torch.stack([temporal_iou(interval, moments) for interval in _moments(5, seed=1)]).amax(0)
    assert_agree("best", several.iou_topn, expected)


@pytest.mark.parametrize("fit", [lambda m: fit_single_intervals(m, (0.5,)), lambda m: fit_interval_set(m, 0.5, 2)])
def test_no_training_moments_are_refused(fit) -> None:
    with pytest.raises(ValueError, match="no training moments"):
        fit(torch.zeros(0, 2))


def test_real_filtered_charades_gives_the_known_figures() -> None:
    train, test = _charades("train"), _charades("test")
    assert (len(train), len(test)) == (10602, 3158)
    rows = fit_blind_baselines(train, THRESHOLDS, 5)
    printed = {}
    for name, intervals in rows.items():
        means = metric_means(blind_table(intervals, test), THRESHOLDS)
        printed[name] = ([round(x, 2) for x in intervals[0].tolist()], [f"{value:.2f}" for value in means.values()])
    assert printed[WHOLE_VIDEO] == ([0.0, 1.0], ["34.26", "0.44", "0.00", "27.20"])
    assert printed["fixed interval, IoU>=0.3"] == ([0.0, 0.52], ["58.58", "29.13", "11.34", "35.21"])
    assert printed["fixed interval, IoU>=0.5"] == ([0.0, 0.30], ["47.47", "36.10", "17.86", "33.06"])
    assert printed["fixed interval, IoU>=0.7"] == ([0.0, 0.36], ["53.01", "35.43", "19.95", "35.09"])
    assert printed["fixed interval, mIoU"] == ([0.0, 0.46], ["57.88", "32.33", "13.52", "35.94"])
    # greedy choice alone reaches 87.75 for 0.5; the exchanges gain four more points
    assert printed["5 fixed intervals, IoU>=0.5"][1] == ["99.87", "91.93", "40.50", "67.80"]
    assert printed["5 fixed intervals, IoU>=0.7"][1] == ["94.49", "82.90", "51.04", "66.77"]


def test_greedy_choice_alone_gives_the_known_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pps_fast.eval.blind._exchange_round", lambda hits, chosen: False)
    fitted = fit_interval_set(_charades("train"), 0.5, 5)
    means = metric_means(blind_table(fitted, _charades("test")), THRESHOLDS)
    assert [f"{value:.2f}" for value in means.values()][:3] == ["99.62", "87.75", "41.07"]


def test_random_guesses_have_the_scores_of_their_distribution() -> None:
    # against the whole video the overlap is the length of the guess: P(length >= m) = (1 - m)^2, mean 1 / 3
    whole = torch.tensor([[0.0, 1.0]]).expand(500, 2)
    tables = random_table(whole, 5, num_draws=100, seed=3)
    single = torch.cat([table.iou_top1 for table in tables])
    best = torch.cat([table.iou_topn for table in tables])
    assert single.mean().item() == pytest.approx(1 / 3, abs=0.005)
    for m in THRESHOLDS:
        hit = (1 - m) ** 2
        assert (single >= m).double().mean().item() == pytest.approx(hit, abs=0.01)
        assert (best >= m).double().mean().item() == pytest.approx(1 - (1 - hit) ** 5, abs=0.01)


def test_random_guesses_follow_their_seed() -> None:
    moments = _moments(20)
    first, again, other = (random_table(moments, 3, num_draws=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[1].iou_topn, again[1].iou_topn)
    assert not torch.equal(first[1].iou_topn, other[1].iou_topn)
    assert not torch.equal(first[0].iou_topn, first[1].iou_topn)


def test_fits_take_the_best_over_a_samples_windows() -> None:
    windows = torch.stack([_moments(40, seed) for seed in range(3)], dim=1)  # [40, 3, 2]
    grid = interval_grid()
    overlap = torch.stack([temporal_iou(grid[:, None], windows[None, :, n]) for n in range(3)]).amax(dim=0)  # [G, 40]
    best = fit_single_intervals(windows, (0.5,))
    hits = (overlap >= 0.5).sum(dim=1)
    assert hits[(grid == best["fixed interval, IoU>=0.5"]).all(dim=1)].item() == hits.max()
    means = overlap.mean(dim=1)
    assert means[(grid == best["fixed interval, mIoU"]).all(dim=1)].item() == pytest.approx(means.max().item())
    # the same window three times is one window
    once = _moments(40)
    thrice = once[:, None].expand(-1, 3, -1)
    for name, interval in fit_single_intervals(once, THRESHOLDS).items():
        assert torch.equal(interval, fit_single_intervals(thrice, THRESHOLDS)[name])
    assert torch.equal(fit_interval_set(once, 0.5, 3), fit_interval_set(thrice, 0.5, 3))


def test_without_training_times_each_fold_of_videos_gets_what_the_others_fit() -> None:
    moments, video = _moments(60), torch.arange(60) // 4 * 7
    rows = cross_fit_baselines(moments, video, (0.5,), 2)
    assert rows[WHOLE_VIDEO].tolist() == [[0.0, 1.0]]
    order = torch.unique(video).tolist()
    for fold in range(NUM_FOLDS):
        members = torch.tensor([order.index(number) % NUM_FOLDS == fold for number in video.tolist()])
        fitted = fit_blind_baselines(moments[~members], (0.5,), 2)
        assert rows.keys() == fitted.keys()
        for name in rows.keys() - {WHOLE_VIDEO}:
            assert (rows[name][members] == fitted[name]).all()
    # a sample's own time has no influence on its own guess
    changed = moments.clone()
    changed[0] = torch.tensor([0.3, 0.31])
    again = cross_fit_baselines(changed, video, (0.5,), 2)
    assert all(torch.equal(rows[name][0], again[name][0]) for name in rows)
    assert cross_fit_baselines(moments, torch.zeros(60), (0.5,), 2).keys() == {WHOLE_VIDEO}


def test_guesses_of_each_sample_are_scored_like_fixed_ones() -> None:
    moments, guess = _moments(9), torch.tensor([[0.1, 0.4], [0.5, 0.9]], dtype=torch.float64)
    same, each = blind_table(guess, moments), blind_table(guess.expand(9, 2, 2), moments)
    assert same.iou_topn is not None and each.iou_topn is not None and torch.equal(same.iou_topn, each.iou_topn)
