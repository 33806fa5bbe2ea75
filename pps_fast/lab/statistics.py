"""Means over runs with their intervals.

Two intervals stand beside every mean, because they answer different questions. The one over runs (Student's t over the
means of n >= 2 runs, seeds and folds alike) covers what another seed or fold of these data would change. The one over
videos (percentile bootstrap: videos of the test splits resampled, values averaged over seeds before) covers what other
videos would change. Neither covers another data set or other hyper-parameters. Runs of several seeds on one fold share
their test videos, and folds share most of their training videos, so that neither interval contains the other's doubt.
The one over videos leaves out what another seed, CPU or number of threads would change, so that it tells no rows apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pps_fast.eval.bootstrap import VideoBootstrap

SeedFold = tuple[int, int | None]
"""seed and fold of a run"""

COVERED = (
    "Intervals are 95 %. 'Over runs': Student's t over the means of the runs; covers other seeds and folds of these "
    "data and not other videos. 'Over videos': bootstrap by video of values averaged over seeds; covers other videos "
    "and not other seeds, CPUs or numbers of threads. One run, blind baselines and people have only the latter, which "
    "calls no rows different. Differences are paired: same seeds, folds, samples and numerics."
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A mean over runs.

    Attributes:
        value: mean of the runs' means, in percent or points of percent.
        num_runs: how many runs.
        over_runs: 95 % t interval over the runs, or None for one run.
        over_videos: 95 % bootstrap interval over the test videos.
    """

    value: float
    num_runs: int
    over_runs: tuple[float, float] | None
    over_videos: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary as values that JSON has."""
        over_runs = None if self.over_runs is None else list(self.over_runs)
        return {
            "value": self.value,
            "runs": self.num_runs,
            "over_runs": over_runs,
            "over_videos": list(self.over_videos),
        }


def t_probability(t: float, degrees: int) -> float:
    """Returns P(|T| <= t) of Student's distribution with a whole number of degrees of freedom, a finite sum."""
    angle = math.atan(t / math.sqrt(degrees))
    cos, is_odd = math.cos(angle), degrees % 2
    term = cos if is_odd else 1.0
    total = 0.0
    for number in range(degrees // 2):
        total += term
        step = 2 * number + is_odd
        term *= cos * cos * (step + 1) / (step + 2)
    if is_odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def t_quantile(degrees: int, probability: float = 0.95) -> float:
    """Returns t with P(|T| <= t) = probability, for 1 or more degrees of freedom."""
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95 % t interval of the mean, or None for a single value."""
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = t_quantile(count - 1) * spread / math.sqrt(count)
    return mean - half, mean + half


def seed_spread(rows: Sequence[dict[SeedFold, float]]) -> dict[str, float] | None:
    """Returns the standard deviation of one run's value over seeds, pooled over rows and folds.

    Rounding has its share in it: runs that differ in the seed differ in all their rounding.

    Args:
        rows: of each row, seed and fold -> the run's value.
    Returns:
        {"value": standard deviation, "degrees": of freedom}, or None where no row has two seeds on a fold.
    """
    squares, degrees = 0.0, 0
    for row in rows:
        for fold in folds_of(list(row)):
            values = [value for (_, run_fold), value in row.items() if run_fold == fold]
            mean = sum(values) / len(values)
            squares += sum((value - mean) ** 2 for value in values)
            degrees += len(values) - 1
    return {"value": math.sqrt(squares / degrees), "degrees": degrees} if degrees else None


def folds_of(seed_folds: Sequence[SeedFold]) -> tuple[int | None, ...]:
    """Returns the folds of some runs, each once, in order."""
    return tuple(sorted({fold for _, fold in seed_folds}, key=lambda fold: -1 if fold is None else fold))


def summarize(values: dict[SeedFold, Tensor], bootstrap: VideoBootstrap) -> Summary:
    """Returns the mean over runs with both intervals.

    Args:
        values: seed and fold -> [B] percentages of the run's samples, as many for every seed of a fold; not empty.
        bootstrap: over the samples of `folds_of(values)`, fold after fold.
    """
    means = [percentages.mean().item() for percentages in values.values()]
    by_fold = [
        torch.stack([percentages for (_, run_fold), percentages in values.items() if run_fold == fold]).mean(dim=0)
        for fold in folds_of(list(values))
    ]
    videos = bootstrap.estimate(torch.cat(by_fold))
    return Summary(
        value=sum(means) / len(means),
        num_runs=len(means),
        over_runs=t_interval(means),
        over_videos=(videos.low, videos.high),
    )
