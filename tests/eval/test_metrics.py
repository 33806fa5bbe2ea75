"""R@n and mIoU, against the published code's figures and against real predictions with known scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pps_fast.eval.metrics import (
    AP_THRESHOLDS,
    SampleTable,
    average_precision,
    best_overlap,
    clip_prediction,
    metric_means,
    precision_values,
    sample_table,
    sample_values,
)
from pps_fast.predict import temporal_iou
from pps_fast.types import Prediction
from tests.support.compare import assert_agree
from tests.support.shared import shared_path

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "kernels_f64.npz"
CHARADES = (0.3, 0.5, 0.7)


def _prediction(spans: Tensor, top1: Tensor) -> Prediction:
    """Returns ranked moments [B, K, 2] and answers [B, 2] as a prediction."""
    empty = torch.zeros(spans.shape[:2])
    return Prediction(spans=spans, nll=empty, order=empty.long(), votes=empty, top1=top1)


@pytest.mark.parametrize("rule", ["charades", "activitynet", "cpl_charades", "none"])
def test_metrics_match_the_published_code(rule: str) -> None:
    with np.load(GOLDEN, allow_pickle=False) as file:
        spans, top1, truth = (torch.from_numpy(file[f"rank/{x}"]) for x in ("selected", f"{rule}/top1", "gt"))
        names, values = file[f"rank/{rule}/metric_names"], file[f"rank/{rule}/metric_values"]
    means = metric_means(sample_table(_prediction(spans, top1), truth), (0.1, 0.3, 0.5, 0.7, 0.9))
    assert len(means) == len(names)
    for name, expected in zip(names.tolist(), values.tolist(), strict=True):
        family, metric = name.split("/")
        ours = f"R@{family[1:]} " + (metric if metric == "mIoU" else f"IoU>={metric}")
        assert means[ours] == pytest.approx(100 * expected, abs=1e-10), name


@pytest.fixture(scope="module")
def real() -> tuple[Prediction, Tensor]:
    """Moment-DETR's zero-shot predictions on all 3,720 Charades-STA test pairs, and the clipped truth."""
    path = shared_path("data/charades_sta/moment_detr_zeroshot_full_test_predictions.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    duration = torch.tensor([row["duration"] for row in rows], dtype=torch.float64)[:, None]
    truth = torch.tensor([row["relevant_windows"][0] for row in rows], dtype=torch.float64) / duration
    answer = torch.tensor([row["predicted_window"] for row in rows], dtype=torch.float64) / duration
    ranked = [[window[:2] for window in row["ranked_predicted_windows"]] for row in rows]
    spans = torch.tensor(ranked, dtype=torch.float64) / duration[:, None]
    return _prediction(spans, answer), truth.clamp(0, 1)


def _printed(prediction: Prediction, truth: Tensor) -> list[str]:
    means = metric_means(sample_table(prediction, truth), CHARADES)
    return [f"{means[name]:.2f}" for name in ("R@1 IoU>=0.3", "R@1 IoU>=0.5", "R@1 IoU>=0.7", "R@1 mIoU")]


def test_real_predictions_reach_their_published_scores(real: tuple[Prediction, Tensor]) -> None:
    assert len(real[1]) == 3720
    assert _printed(*real) == ["41.45", "25.70", "9.95", "26.62"]


def test_clipping_real_predictions_adds_what_it_is_known_to_add(real: tuple[Prediction, Tensor]) -> None:
    prediction, truth = real
    before = metric_means(sample_table(prediction, truth), CHARADES)
    after = metric_means(sample_table(clip_prediction(prediction), truth), CHARADES)
    gained = [f"{after[name] - before[name]:.1f}" for name in ("R@1 IoU>=0.3", "R@1 IoU>=0.5", "R@1 IoU>=0.7")]
    assert gained == ["0.6", "1.1", "1.5"]
    assert _printed(clip_prediction(prediction), truth) == ["42.04", "26.83", "11.42", "27.33"]


def test_recall_at_five_ignores_the_sixth_moment_and_the_answer() -> None:
    spans = torch.tensor([[[0.9, 1.0]] * 5 + [[0.0, 0.5]]], dtype=torch.float64)
    table = sample_table(_prediction(spans, spans[:, 5]), torch.tensor([[0.0, 0.5]]))
    assert table.num_ranked == 5
    assert_agree("answer", table.iou_top1, torch.ones(1, dtype=torch.float64), atol=1e-9)
    assert_agree("ranked", table.iou_topn, torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize(("num_proposals", "families"), [(1, {"R@1"}), (3, {"R@1", "R@3"}), (7, {"R@1", "R@5"})])
def test_metric_names_say_how_many_moments_were_looked_at(num_proposals: int, families: set[str]) -> None:
    spans = torch.rand(4, num_proposals, 2).sort(dim=-1).values
    values = sample_values(sample_table(_prediction(spans, spans[:, 0]), spans[:, 0]), (0.5,))
    assert set(values) == {f"{family} {metric}" for family in families for metric in ("IoU>=0.5", "mIoU")}


def test_threshold_itself_counts() -> None:
    table = SampleTable(iou_top1=torch.tensor([0.5], dtype=torch.float64), iou_topn=None, num_ranked=1)
    means = metric_means(table, (0.5, 0.5001))
    assert (means["R@1 IoU>=0.5"], means["R@1 IoU>=0.5001"]) == (100.0, 0.0)


def test_clipping_leaves_ranks_and_votes() -> None:
    spans = torch.tensor([[[-0.2, 0.3], [0.5, 1.4]]])
    prediction = Prediction(
        spans=spans,
        nll=torch.tensor([[1.0, 2.0]]),
        order=torch.tensor([[1, 0]]),
        votes=torch.tensor([[3.0, 4.0]]),
        top1=spans[:, 1],
    )
    clipped = clip_prediction(prediction)
    assert_agree("spans", clipped.spans, torch.tensor([[[0.0, 0.3], [0.5, 1.0]]]))
    assert_agree("top1", clipped.top1, torch.tensor([[0.5, 1.0]]))
    for name in ("nll", "order", "votes"):
        assert_agree(name, getattr(clipped, name), getattr(prediction, name))


def test_other_number_of_truths_is_refused() -> None:
    spans = torch.rand(3, 2, 2)
    with pytest.raises(ValueError, match="3 predictions for 2 true moments"):
        sample_table(_prediction(spans, spans[:, 0]), torch.rand(2, 2))


def test_mean_over_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples to average R@1"):
        metric_means(SampleTable(iou_top1=torch.zeros(0), iou_topn=None, num_ranked=1), (0.5,))


def test_the_best_of_several_windows_counts() -> None:
    spans = torch.tensor([[[0.0, 0.5], [0.6, 0.8]], [[0.0, 0.1], [0.5, 1.0]]], dtype=torch.float64)
    windows = torch.tensor([[[0.5, 0.9], [0.0, 0.5]], [[0.9, 1.0], [0.9, 1.0]]], dtype=torch.float64)
    table = sample_table(_prediction(spans, spans[:, 0]), windows)
    assert table.iou_top1 is not None and table.iou_topn is not None
    # the overlap is smoothed by 1e-10
    assert table.iou_top1.tolist() == pytest.approx([1.0, 0.0], abs=1e-9)
    assert table.iou_topn.tolist() == pytest.approx([1.0, 0.2], abs=1e-9)
    # the order of the windows decides nothing
    again = sample_table(_prediction(spans, spans[:, 0]), windows.flip(1))
    assert again.iou_topn is not None and torch.equal(again.iou_topn, table.iou_topn)


def test_real_predictions_on_several_windows_have_the_recall_of_the_official_evaluation() -> None:
    def read(name: str) -> list[dict]:
        text = shared_path(f"data/qvhighlights/{name}").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    windows = {row["qid"]: row["relevant_windows"] for row in read("highlight_val_release.jsonl")}
    answers = {row["qid"]: row["pred_relevant_windows"][0][:2] for row in read("moment_detr_sample_val_preds.jsonl")}
    overlap = torch.cat(
        [
            best_overlap(torch.tensor([[answers[qid]]]), torch.tensor([windows[qid]], dtype=torch.float64))[0]
            for qid in windows
        ]
    )
    assert len(overlap) == 1550
    # of moment_detr_sample_val_preds_metrics.json
    recall = [round(100 * (overlap >= m).double().mean().item(), 2) for m in (0.5, 0.7)]
    assert recall == [53.94, 34.84]


def _loop_precision(guesses: list, windows: list, threshold: float) -> float:
    """Average precision by its other definition: the mean over windows of the best precision that finds so many."""
    is_free, hits = [True] * len(windows), []
    for start, end in guesses:
        overlaps = [
            max(0.0, min(end, last) - max(start, first)) / (max(end, last) - min(start, first)) if free else -1.0
            for (first, last), free in zip(windows, is_free, strict=True)
        ]
        best = max(range(len(windows)), key=lambda index: overlaps[index])
        hits.append(overlaps[best] >= threshold)
        if hits[-1]:
            is_free[best] = False
    total = 0.0
    for wanted in range(1, len(windows) + 1):
        enough = [sum(hits[:n]) / n for n in range(1, len(hits) + 1) if sum(hits[:n]) >= wanted]
        total += max(enough, default=0.0)
    return total / len(windows)


def test_average_precision_agrees_with_loops() -> None:
    random = np.random.default_rng(0)
    num_guesses, num_windows = random.integers(1, 7, 60), random.integers(1, 4, 60)
    guesses = np.sort(random.integers(0, 12, (60, 6, 2)) + np.array([0, 1]), axis=2).astype(float)
    windows = np.sort(random.integers(0, 12, (60, 3, 2)) + np.array([0, 1]), axis=2).astype(float)
    windows[..., 1] += windows[..., 0] == windows[..., 1]
    is_guess, is_window = (np.arange(n) < count[:, None] for n, count in ((6, num_guesses), (3, num_windows)))
    overlap = temporal_iou(torch.from_numpy(guesses)[:, :, None], torch.from_numpy(windows)[:, None])
    masks = torch.from_numpy(is_guess), torch.from_numpy(is_window)
    precision = average_precision(overlap, *masks, AP_THRESHOLDS)
    expected = [
        [_loop_precision(guesses[b, : num_guesses[b]], windows[b, : num_windows[b]], m) for m in AP_THRESHOLDS]
        for b in range(60)
    ]
    assert 0.1 < np.mean(expected) < 0.9
    assert_agree("average precision", precision, torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    values = precision_values(precision)
    assert list(values) == ["mAP 0.5 to 0.95", "mAP IoU>=0.5", "mAP IoU>=0.75"]
    assert_agree("mean", values["mAP 0.5 to 0.95"], 100 * torch.tensor(expected).double().mean(dim=1), atol=1e-9)


def test_average_precision_gives_a_window_to_one_moment_only() -> None:
    # the same answer twice, then the second window: hits at the first and the third rank
    overlap = torch.tensor([[[0.9, 0.0], [0.9, 0.0], [0.0, 0.8]]])
    everything = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    assert average_precision(overlap, *everything, (0.5, 0.85)).tolist() == [pytest.approx([(1 + 2 / 3) / 2, 0.5])]
    # a window that is not there is no reason to miss it
    only_first = torch.tensor([[True, False]])
    assert average_precision(overlap, everything[0], only_first, (0.5,)).item() == 1.0
    # nor does a moment that is not there hit
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert average_precision(overlap, none, everything[1], (0.5,)).item() == 0.0
