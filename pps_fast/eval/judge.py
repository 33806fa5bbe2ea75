"""Other people's answers in this project's table: scored beside blind baselines, and against each other.

Nothing of a model is needed. Answers are scored as they are: a moment that reaches beyond its video is not clipped,
unless that is asked for. Times are seconds.

Letters: B scored queries, n windows of an answer at most, w windows of a query at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pps_fast.eval.answers import Matched, Query, Window
from pps_fast.eval.blind import blind_table, cross_fit_baselines
from pps_fast.eval.bootstrap import Estimate, VideoBootstrap
from pps_fast.eval.compared import ComparedRows
from pps_fast.eval.metrics import (
    AP_THRESHOLDS,
    MAX_RANK,
    SampleTable,
    average_precision,
    best_overlap,
    precision_values,
    sample_values,
)
from pps_fast.eval.results import HEADLINE, Comparison
from pps_fast.predict import temporal_iou

# seconds: lengths of windows that QVHighlights reports apart, above the first and up to the second
LENGTHS = {"short, to 10 s": (0.0, 10.0), "middle, to 30 s": (10.0, 30.0), "long": (30.0, float("inf"))}
# no moment: its overlap with every window is 0
_NOWHERE = (-1.0, -1.0)

Values = dict[str, Tensor]
"""metric -> [B] contribution of each query, in percent"""


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """All results. Figures are percentages; intervals are 95 % bootstrap by video.

    Attributes:
        num_queries, num_windows, num_videos: what is scored.
        num_unscored: queries without times, or that the protocol does not count.
        files: what was judged; the first is compared with the best blind baseline and with each other file.
        num_missing: by file, queries without an answer, which count as missed.
        num_outside: by file, answers that reach beyond the video.
        is_clipped: whether answers were clipped to the video.
        num_ranked: n of R@n.
        seed, num_bootstrap: of the intervals.
        rows: name of a file or blind baseline -> metric -> estimate.
        best_blind: metric -> the first file against the blind baseline that scores best.
        paired: name of another file -> metric -> the first file against it.
        by_length: name of a file -> a key of LENGTHS -> mAP over the queries that have such windows.
        num_by_length: a key of LENGTHS -> these queries.
    """

    num_queries: int
    num_windows: int
    num_videos: int
    num_unscored: int
    files: tuple[Matched, ...]
    num_missing: dict[str, int]
    num_outside: dict[str, int]
    is_clipped: bool
    num_ranked: int
    seed: int
    num_bootstrap: int
    rows: dict[str, dict[str, Estimate]]
    best_blind: dict[str, Comparison]
    paired: dict[str, dict[str, Comparison]]
    by_length: dict[str, dict[str, Estimate]]
    num_by_length: dict[str, int]

    @property
    def headline(self) -> str:
        """One sentence: the best blind baseline on `results.HEADLINE`, and whether the first file beats it."""
        name, best = self.files[0].name, self.best_blind[HEADLINE]
        return (
            f"{HEADLINE}: the best blind baseline is '{best.row}' ({self.rows[best.row][HEADLINE].value:.2f}); "
            f"{name} ({self.rows[name][HEADLINE].value:.2f}) is {best.verdict}."
        )


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """What B scored queries describe.

    Attributes:
        windows: [B, w, 2] float64 seconds within the video; an absent one repeats the first.
        is_window: [B, w] bool.
        duration: [B] float64 seconds.
        video: [B] int64, a number for each video.
    """

    windows: Tensor
    is_window: Tensor
    duration: Tensor
    video: Tensor

    @classmethod
    def of(cls, scored: Sequence[Query]) -> _Truth:
        """Takes the windows of queries, clipped to their videos; raises ValueError without queries."""
        if not scored:
            raise ValueError("judge: no query of the annotations has times that count, so that nothing can be scored")
        windows, is_window = _padded([query.windows for query in scored])
        duration = torch.tensor([query.duration_s for query in scored], dtype=torch.float64)
        windows = torch.minimum(windows.clamp_min(0), duration[:, None, None])
        number: dict[str, int] = {}
        video = [number.setdefault(query.video_id, len(number)) for query in scored]
        return cls(
            windows=torch.where(is_window[:, :, None], windows, windows[:, :1]),
            is_window=is_window,
            duration=duration,
            video=torch.tensor(video),
        )

    @property
    def fractions(self) -> Tensor:
        """[B, w, 2] windows as fractions of the video's length."""
        return self.windows / self.duration[:, None, None]


@dataclass(frozen=True, kw_only=True)
class _Ranking:
    """The answers of one file to B queries.

    Attributes:
        chosen: [B, 2] float64 seconds, the one answer.
        spans: [B, n, 2] float64 seconds, by falling score.
        is_span: [B, n] bool.
    """

    chosen: Tensor
    spans: Tensor
    is_span: Tensor

    @classmethod
    def of(cls, matched: Matched, duration: Tensor | None) -> _Ranking:
        """Takes the answers of a file, clipped to the videos where their [B] lengths are given."""
        answers = matched.answers
        chosen = [_NOWHERE if answer is None or answer.chosen is None else answer.chosen for answer in answers]
        spans, is_span = _padded([() if answer is None else answer.windows for answer in answers])
        best = torch.tensor(chosen, dtype=torch.float64)
        if duration is not None:
            is_answer = (best != torch.tensor(_NOWHERE)).any(dim=1, keepdim=True)
            clipped = torch.minimum(best.clamp_min(0), duration[:, None])
            best = torch.where(is_answer, clipped, best)
            spans = torch.where(is_span[:, :, None], torch.minimum(spans.clamp_min(0), duration[:, None, None]), spans)
        return cls(chosen=best, spans=spans, is_span=is_span)


def _padded(rows: Sequence[tuple[Window, ...]]) -> tuple[Tensor, Tensor]:
    """Returns [B, n, 2] float64 windows, filled up with _NOWHERE, and [B, n] bool, which there are."""
    width = max(1, *(len(row) for row in rows))
    filled = [[*row, *[_NOWHERE] * (width - len(row))] for row in rows]
    counts = torch.tensor([len(row) for row in rows])
    return torch.tensor(filled, dtype=torch.float64), torch.arange(width) < counts[:, None]


def judge(
    queries: Sequence[Query],
    files: Sequence[Matched],
    thresholds: Sequence[float],
    *,
    is_clipped: bool = False,
    seed: int = 0,
    num_bootstrap: int = 1000,
) -> Judgment:
    """Scores files of answers beside blind baselines, which are fitted on the scored queries of other videos.

    Annotated windows are clipped to the video; R@1 scores the one answer, R@n and mAP the ranking; a query without an
    answer counts as missed. Of several windows the one that is met best counts for R@n, all count for mAP.

    Args:
        queries: all of the annotations, as `answers.match_answers` had them.
        files: the first is compared with all others; their names differ.
        thresholds: the m of IoU >= m.
        is_clipped: clip the answers to the video.
    Raises:
        ValueError: where no query has times that count.
    """
    truth = _Truth.of([query for query in queries if query.is_scored])
    rankings = {one.name: _Ranking.of(one, truth.duration if is_clipped else None) for one in files}
    num_ranked = min(MAX_RANK, max(ranking.spans.shape[1] for ranking in rankings.values()))
    values = {name: _values(ranking, truth, num_ranked, thresholds) for name, ranking in rankings.items()}
    values |= _all_blind_values(truth, num_ranked, thresholds)
    bootstrap = VideoBootstrap(truth.video, num_resamples=num_bootstrap, seed=seed)
    return Judgment(
        files=tuple(files),
        is_clipped=is_clipped,
        num_ranked=num_ranked,
        seed=seed,
        num_bootstrap=num_bootstrap,
        by_length={name: _by_length(one, truth, seed, num_bootstrap) for name, one in rankings.items()},
        **_counts(queries, files, truth),
        **_compared(values, [one.name for one in files], bootstrap),
    )


def _counts(queries: Sequence[Query], files: Sequence[Matched], truth: _Truth) -> dict[str, Any]:
    """Returns the fields of the judgment that are counts of queries, windows and answers."""
    scored = [query for query in queries if query.is_scored]
    return {
        "num_videos": len(truth.video.unique()),
        "num_unscored": len(queries) - len(scored),
        "num_queries": len(scored),
        "num_windows": int(truth.is_window.sum()),
        "num_missing": {one.name: _num_missing(one) for one in files},
        "num_outside": {one.name: _num_outside(one, scored) for one in files},
        "num_by_length": {name: int(_in_range(truth, *LENGTHS[name]).any(dim=1).sum()) for name in LENGTHS},
    }


def _values(ranking: _Ranking, truth: _Truth, num_ranked: int, thresholds: Sequence[float]) -> Values:
    overlap = temporal_iou(ranking.spans[:, :, None], truth.windows[:, None])  # [B, n, w]
    table = SampleTable(
        iou_top1=best_overlap(ranking.chosen[:, None], truth.windows)[:, 0],
        iou_topn=overlap[:, :num_ranked].amax(dim=(1, 2)),
        num_ranked=num_ranked,
    )
    precision = average_precision(overlap, ranking.is_span, truth.is_window, AP_THRESHOLDS)
    return {**sample_values(table, thresholds), **precision_values(precision)}


def _all_blind_values(truth: _Truth, num_ranked: int, thresholds: Sequence[float]) -> dict[str, Values]:
    blind = cross_fit_baselines(truth.fractions, truth.video, thresholds, num_ranked)
    return {name: _blind_values(guesses, truth, thresholds) for name, guesses in blind.items()}


def _blind_values(guesses: Tensor, truth: _Truth, thresholds: Sequence[float]) -> Values:
    """Scores [n, 2] or [B, n, 2] guesses, fractions of the video; their order is their rank."""
    expanded = guesses.expand(len(truth.windows), -1, -1)
    overlap = temporal_iou(expanded[:, :, None], truth.fractions[:, None])
    is_guess = torch.ones(expanded.shape[:2], dtype=torch.bool)
    precision = average_precision(overlap, is_guess, truth.is_window, AP_THRESHOLDS)
    table = blind_table(guesses, truth.fractions)
    return {**sample_values(table, thresholds), **precision_values(precision)}


def _in_range(truth: _Truth, low: float, high: float) -> Tensor:
    """Returns [B, w] bool, which windows are longer than `low` and at most `high` seconds."""
    length = truth.windows[:, :, 1] - truth.windows[:, :, 0]
    return truth.is_window & (length > low) & (length <= high)


def _by_length(ranking: _Ranking, truth: _Truth, seed: int, num_bootstrap: int) -> dict[str, Estimate]:
    """Returns mAP where only windows of some length count, over the queries that have such."""
    estimates = {}
    for name, (low, high) in LENGTHS.items():
        is_window = _in_range(truth, low, high)
        kept = is_window.any(dim=1)
        if not kept.any():
            continue
        overlap = temporal_iou(ranking.spans[kept, :, None], truth.windows[kept, None])
        precision = average_precision(overlap, ranking.is_span[kept], is_window[kept], AP_THRESHOLDS)
        bootstrap = VideoBootstrap(truth.video[kept], num_resamples=num_bootstrap, seed=seed)
        estimates[name] = bootstrap.estimate(100.0 * precision.mean(dim=1))
    return estimates


def _num_missing(matched: Matched) -> int:
    return sum(answer is None or answer.chosen is None for answer in matched.answers)


def _num_outside(matched: Matched, scored: Sequence[Query]) -> int:
    """Returns how many answers begin before their video or end after it."""
    pairs = zip(matched.answers, scored, strict=True)
    chosen = [(answer.chosen, query.duration_s) for answer, query in pairs if answer is not None]
    return sum(window is not None and (window[0] < 0 or window[1] > length) for window, length in chosen)


def _compared(values: dict[str, Values], files: list[str], bootstrap: VideoBootstrap) -> dict[str, Any]:
    """Returns the fields rows, best_blind and paired of the judgment; all but `files` are blind baselines."""
    compared, others = ComparedRows(values, files[0], bootstrap), files[1:]
    return {
        "rows": compared.rows,
        "best_blind": compared.against_best(name for name in values if name not in files),
        "paired": {other: compared.against(other) for other in others},
    }
