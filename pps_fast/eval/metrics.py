"""R@n at IoU thresholds and mIoU, all derived from one per-sample table of overlaps.

Paper: Section 4, "Evaluation metrics". Times are fractions of the video's length; every metric is a
percentage, the mean over samples of what `sample_values` returns.
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
