"""R@n at IoU thresholds and mIoU, all derived from one per-sample table of overlaps; and average precision.

Paper: Section 4, "Evaluation metrics"; average precision is that of QVHighlights (Lei et al., NeurIPS 2021). Times are
fractions of the video's length or seconds; every metric is a percentage, the mean over samples of what `sample_values`
and `precision_values` return.

Letters: B samples, n ranked moments, w windows, Q thresholds m of IoU >= m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pps_fast.predict import temporal_iou
from pps_fast.types import Prediction

# n of R@n: the answer, and the best of the first five ranked moments
MAX_RANK = 5
AP_THRESHOLDS = tuple(m / 100 for m in range(50, 100, 5))
"""of IoU, over which mAP is averaged"""
AP_SHOWN = (0.5, 0.75)
"""of these, those that are shown apart"""


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """Overlaps of one predictor with the true moments; every reported metric is a mean over its samples.

    A predictor without a single answer (several fixed intervals) has no `iou_top1`, one with a single
    guess no `iou_topn`.

    Attributes:
        iou_top1: [B] overlap of the answer, or None.
        iou_topn: [B] best overlap among the `num_ranked` best ranked moments, or None.
        num_ranked: n of `iou_topn`, min(K, 5).
    """

    iou_top1: Tensor | None
    iou_topn: Tensor | None
    num_ranked: int


def clip_prediction(prediction: Prediction) -> Prediction:
    """Returns the prediction with its moments clipped to the video, [0, 1]; ranks and votes stay."""
    return Prediction(
        spans=prediction.spans.clamp(0, 1),
        nll=prediction.nll,
        order=prediction.order,
        votes=prediction.votes,
        top1=prediction.top1.clamp(0, 1),
    )


def best_overlap(guesses: Tensor, truth: Tensor) -> Tensor:
    """Returns the overlap of each guess with the window of its sample that it meets best, as QVHighlights scores.

    Args:
        guesses: [B, n, 2] moments, or [1, n, 2] the same ones for every sample.
        truth: [B, 2], or [B, w, 2] for several windows.
    Returns:
        [B, n] float64.
    """
    windows = truth.double() if truth.ndim == 3 else truth.double()[:, None]
    return temporal_iou(guesses.double()[:, :, None], windows[:, None]).amax(dim=2)


def sample_table(prediction: Prediction, moments: Tensor) -> SampleTable:
    """Compares ranked moments with the true ones in float64, without clipping them.

    R@1 scores the answer of the selector; R@n the n = min(K, 5) moments of lowest C, which may not include that answer.

    Args:
        prediction: of B samples.
        moments: [B, 2] true moments in the unit of the prediction, or [B, w, 2] all windows of each sample, of which
            the best counts.

    Raises:
        ValueError: if the numbers of samples differ.
    """
    if len(moments) != len(prediction.top1):
        raise ValueError(
            f"sample_table: {len(prediction.top1)} predictions for {len(moments)} true moments; "
            "pass the moments of the predicted samples, in their order"
        )
    num_ranked = min(prediction.spans.shape[1], MAX_RANK)
    return SampleTable(
        iou_top1=best_overlap(prediction.top1[:, None], moments)[:, 0],
        iou_topn=best_overlap(prediction.spans[:, :num_ranked], moments).amax(dim=1),
        num_ranked=num_ranked,
    )


def _columns(name: str, overlap: Tensor, thresholds: Sequence[float]) -> dict[str, Tensor]:
    """Returns {name IoU>=m: [B] of 0 or 100, name mIoU: [B] in 0..100}."""
    columns = {f"{name} IoU>={m:g}": 100.0 * (overlap >= m) for m in thresholds}
    return {**columns, f"{name} mIoU": 100.0 * overlap}


def sample_values(table: SampleTable, thresholds: Sequence[float]) -> dict[str, Tensor]:
    """Returns metric name -> [B] float64 contribution of each sample, in percent.

    The names are "R@1 IoU>=0.5", "R@1 mIoU" and, with n = min(K, 5) above 1, "R@5 IoU>=0.5", "R@5 mIoU".

    Args:
        table: overlaps of one predictor.
        thresholds: the m of IoU >= m, in (0, 1].
    """
    values: dict[str, Tensor] = {}
    if table.iou_top1 is not None:
        values.update(_columns("R@1", table.iou_top1, thresholds))
    if table.iou_topn is not None and table.num_ranked > 1:
        values.update(_columns(f"R@{table.num_ranked}", table.iou_topn, thresholds))
    return {name: value.to(torch.float64) for name, value in values.items()}


def metric_means(table: SampleTable, thresholds: Sequence[float]) -> dict[str, float]:
    """Returns metric name -> mean over samples, in percent; names as in `sample_values`.

    Raises:
        ValueError: for a table without samples.
    """
    values = sample_values(table, thresholds)
    for name, value in values.items():
        if len(value) == 0:
            raise ValueError(f"metric_means: no samples to average {name} over; choose a split that has samples")
    return {name: value.mean().item() for name, value in values.items()}


def average_precision(overlap: Tensor, is_guess: Tensor, is_window: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Average precision of ranked moments for each sample, as QVHighlights' evaluation defines it.

    By falling rank each moment takes the window it overlaps best of those that no earlier one has taken, if by the
    threshold or more: a hit. The precision at a rank is the share of hits among the moments up to it; AP is the sum
    over the hits of the best precision at their rank or a later one, divided by the number of windows.

    Args:
        overlap: [B, n, w] IoU of each moment, by falling rank, with each window.
        is_guess: [B, n] bool, which moments there are; a sample's absent ones come last.
        is_window: [B, w] bool, which windows there are, one at least.
        thresholds: Q values m of IoU >= m.
    Returns:
        [B, Q] float64 in [0, 1].
    """
    num_samples, num_moments, _ = overlap.shape
    limits = torch.tensor(thresholds, dtype=torch.float64)
    is_free = is_window[:, None].repeat(1, len(limits), 1)  # [B, Q, w]
    hits = torch.zeros(num_samples, len(limits), num_moments, dtype=torch.float64)
    for rank in range(num_moments):
        best, window = overlap[:, rank, None].double().masked_fill(~is_free, -1.0).max(dim=2)  # [B, Q]
        is_hit = (best >= limits) & is_guess[:, rank, None]
        hits[:, :, rank] = is_hit
        taken = torch.zeros_like(is_free).scatter_(2, window[:, :, None], is_hit[:, :, None])
        is_free &= ~taken
    precision = hits.cumsum(dim=2) / torch.arange(1, num_moments + 1)
    best_from = precision.flip(2).cummax(dim=2).values.flip(2)
    return (hits * best_from).sum(dim=2) / is_window.sum(dim=1, keepdim=True)


def precision_values(precision: Tensor) -> dict[str, Tensor]:
    """Returns metric name -> [B] contribution of each sample to mAP, in percent.

    Args:
        precision: [B, 10] average precision at `AP_THRESHOLDS`.
    """
    shown = {f"mAP IoU>={m:g}": 100.0 * precision[:, AP_THRESHOLDS.index(m)] for m in AP_SHOWN}
    return {"mAP 0.5 to 0.95": 100.0 * precision.mean(dim=1), **shown}
