"""Baselines that see neither video nor query: fixed intervals of the video's length.

They are fitted on the training moments and scored like a model. A result that does not beat them shows
no grounding, however high it is: moments are not spread evenly over videos.

Letters: B samples, G intervals of the grid, Q thresholds m of IoU >= m, n guesses of one baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pps_fast.eval.metrics import SampleTable, best_overlap

# of the grid of starts and ends, as a fraction of the video's length
_STEP = 0.02
# moments compared with the whole grid at a time: 1275 intervals x 2048 moments x 8 bytes = 21 MB a temporary
_CHUNK = 2048

NUM_FOLDS = 5
"""of `cross_fit_baselines`"""
WHOLE_VIDEO = "whole video"
RANDOM = "random start and end"


def interval_grid(step: float = _STEP) -> Tensor:
    """Returns [G, 2] float64: all intervals of [0, 1] whose start < end are multiples of `step`."""
    count = round(1 / step)
    ticks = torch.arange(count + 1, dtype=torch.float64) / count
    first, second = torch.triu_indices(count + 1, count + 1, offset=1)
    return torch.stack([ticks[first], ticks[second]], dim=1)


def _fit_statistics(grid: Tensor, moments: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Sums IoU >= m over the moments for each of Q thresholds m, and the IoU: -> [Q + 1, G]."""
    totals = torch.zeros(len(thresholds) + 1, len(grid), dtype=torch.float64)
    for chunk in _chunks(moments):
        overlap = _grid_overlap(grid, chunk)
        for row, threshold in enumerate(thresholds):
            totals[row] += (overlap >= threshold).sum(dim=1)
        totals[-1] += overlap.sum(dim=1)
    return totals


def _chunks(moments: Tensor) -> tuple[Tensor, ...]:
    """Returns [B, 2] or [B, w, 2] in parts of at most _CHUNK windows."""
    num_windows = moments.shape[1] if moments.ndim == 3 else 1
    return moments.split(max(_CHUNK // num_windows, 1))


def _grid_overlap(grid: Tensor, moments: Tensor) -> Tensor:
    """Returns [G, B] best overlaps of all intervals with some moments."""
    if moments.ndim == 3:
        # the most windows of any sample may be many more than those of these: repeats of the first change nothing
        is_repeat = (moments == moments[:, :1]).all(dim=2).all(dim=0)
        is_repeat[0] = False
        moments = moments[:, ~is_repeat]
    # in this layout, because the order of sums decides between intervals that are equally good but for rounding
    return best_overlap(grid[None], moments).T.contiguous()


def fit_single_intervals(moments: Tensor, thresholds: Sequence[float]) -> dict[str, Tensor]:
    """Fits the best fixed interval for each threshold and for mIoU, by exhaustive search over the grid.

    Args:
        moments: [B, 2] training moments, or [B, w, 2] all windows of each sample, as fractions of the video's length.
        thresholds: the m of IoU >= m.

    Returns:
        row name -> [2] interval; on ties the one that starts, then ends, first.

    Raises:
        ValueError: without training moments.
    """
    _require_moments(moments)
    grid = interval_grid()
    best = _fit_statistics(grid, moments.double(), thresholds).argmax(dim=1)
    names = [f"fixed interval, IoU>={m:g}" for m in thresholds] + ["fixed interval, mIoU"]
    return {name: grid[index] for name, index in zip(names, best, strict=True)}


def fit_interval_set(moments: Tensor, threshold: float, count: int) -> Tensor:
    """Fits `count` fixed intervals that together hit (IoU >= threshold) as many moments as possible.

    Intervals are chosen greedily on the grid; then each in turn is replaced by the best one given the others, until no
    single replacement hits more. The result need not be the global optimum.

    Args:
        moments: [B, 2] training moments, or [B, w, 2] all windows of each sample, as fractions of the video's length.
        threshold: m of IoU >= m.
        count: number of intervals, 1 or more.

    Returns:
        [count, 2] intervals, in the order of the greedy choice.

    Raises:
        ValueError: without training moments.
    """
    _require_moments(moments)
    grid = interval_grid()
    chunks = [_grid_overlap(grid, chunk) >= threshold for chunk in _chunks(moments)]
    hits = torch.cat(chunks, dim=1)  # [G, B]
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(_gains(hits, chosen).argmax()))
    while _exchange_round(hits, chosen):
        pass
    return grid[chosen]


def _gains(hits: Tensor, others: list[int]) -> Tensor:
    """Returns [G], how many moments each interval hits that none of `others` does; hits [G, B] bool."""
    missed = (~hits[others].any(dim=0)).float()
    gains = torch.zeros(len(hits))
    # a product in fp32 counts exactly up to 2^24 and is much faster than summing booleans
    for block, weights in zip(hits.split(_CHUNK, dim=1), missed.split(_CHUNK), strict=True):
        gains += block.float() @ weights
    return gains


def _exchange_round(hits: Tensor, chosen: list[int]) -> bool:
    """Replaces, in place, each chosen interval where another hits more; returns whether one was replaced."""
    improved = False
    for position in range(len(chosen)):
        gains = _gains(hits, chosen[:position] + chosen[position + 1 :])
        best = int(gains.argmax())
        if gains[best] > gains[chosen[position]]:
            chosen[position] = best
            improved = True
    return improved


def fit_blind_baselines(moments: Tensor, thresholds: Sequence[float], num_ranked: int) -> dict[str, Tensor]:
    """Returns every blind baseline: name -> [1, 2] single guess, or [n, 2] intervals for R@n.

    Baselines: the whole video, the best fixed interval for each threshold and for mIoU, and, when
    num_ranked = n is above 1, the best n fixed intervals for each threshold.

    Args:
        moments: [B, 2] training moments, or [B, w, 2] all windows of each sample, as fractions of the video's length.
        thresholds: the m of IoU >= m.
        num_ranked: n of the model's R@n, min(K, 5).

    Raises:
        ValueError: without training moments.
    """
    rows = {WHOLE_VIDEO: torch.tensor([[0.0, 1.0]], dtype=torch.float64)}
    rows.update({name: interval[None] for name, interval in fit_single_intervals(moments, thresholds).items()})
    if num_ranked > 1:
        for m in thresholds:
            rows[f"{num_ranked} fixed intervals, IoU>={m:g}"] = fit_interval_set(moments, m, num_ranked)
    return rows


def cross_fit_baselines(
    moments: Tensor, video: Tensor, thresholds: Sequence[float], num_ranked: int
) -> dict[str, Tensor]:
    """Fits blind baselines for scored samples where no training pair has times: on the other videos' scored samples.

    The videos are dealt to five folds (fewer where there are fewer videos) in the order of their numbers; the samples
    of a fold get what is fitted on the others.

    Args:
        moments: [B, 2] or [B, w, 2], as for `fit_blind_baselines`, of the scored samples.
        video: [B] int64 the video of each.
    Returns:
        name -> [B, n, 2] guesses for each sample, and the whole video, [1, 2]; that alone where all samples are of one
        video.
    Raises:
        ValueError: without samples.
    """
    _require_moments(moments)
    videos, row = torch.unique(video, return_inverse=True)
    num_folds = min(NUM_FOLDS, len(videos))
    rows = {WHOLE_VIDEO: torch.tensor([[0.0, 1.0]], dtype=torch.float64)}
    for fold in range(num_folds if num_folds > 1 else 0):
        is_held_out = row % num_folds == fold
        fitted = fit_blind_baselines(moments[~is_held_out], thresholds, num_ranked)
        for name, guesses in fitted.items():
            if name == WHOLE_VIDEO:
                continue
            rows.setdefault(name, guesses.new_zeros(len(moments), *guesses.shape))[is_held_out] = guesses
    return rows


def random_table(moments: Tensor, num_ranked: int, *, num_draws: int = 200, seed: int = 0) -> list[SampleTable]:
    """Scores random guesses: start and end are two independent uniform draws in [0, 1], sorted.

    Each of the n guesses of a sample is drawn anew, so R@n is that of n independent guesses.

    Args:
        moments: [B, 2] true moments of the scored samples, or [B, w, 2] all windows of each.
        num_ranked: n of R@n.
        num_draws: repetitions, one table each; a metric is the mean over all.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = []
    for _ in range(num_draws):
        drawn = torch.rand(len(moments), num_ranked, 2, generator=generator, dtype=torch.float64)
        overlap = best_overlap(drawn.sort(dim=-1).values, moments)  # [B, n]
        tables.append(SampleTable(iou_top1=overlap[:, 0], iou_topn=overlap.amax(dim=1), num_ranked=num_ranked))
    return tables


def blind_table(intervals: Tensor, moments: Tensor) -> SampleTable:
    """Scores one blind baseline: a single guess fills only R@1, a set of n guesses only R@n.

    Args:
        intervals: [n, 2] a baseline of `fit_blind_baselines`, or [B, n, 2] one of `cross_fit_baselines`.
        moments: [B, 2] true moments of the scored samples, or [B, w, 2] all windows of each.
    """
    guesses = intervals if intervals.ndim == 3 else intervals[None]
    overlap = best_overlap(guesses, moments)  # [B, n]
    if guesses.shape[1] == 1:
        return SampleTable(iou_top1=overlap[:, 0], iou_topn=None, num_ranked=1)
    return SampleTable(iou_top1=None, iou_topn=overlap.amax(dim=1), num_ranked=guesses.shape[1])


def _require_moments(moments: Tensor) -> None:
    if len(moments) == 0:
        raise ValueError("blind baselines: no training moments to fit fixed intervals on; the train split is empty")
