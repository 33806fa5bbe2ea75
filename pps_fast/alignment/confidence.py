"""How sure an answer of an alignment is: whether the sentence is in the video at all, and where within it.

Evidence of a match is the mean over the moment of s less the score of the training videos' mean frame, divided by
|M y|. A logistic function of it, fitted to training sentences with their own videos and with other ones, makes it a
probability. Clarity is the sum of s - mean s over its max-sum window, divided by S, as a rank among training pairs.
Curves come from maps that were fitted without the pair's part of the videos, as those of a new video do. No true time
is read; lengths of videos tell how long moments are in seconds.

Letters: m curves, c moments of each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pps_fast.alignment.equations import max_sum_window, window_mask
from pps_fast.alignment.fit import part_of_pairs, raw_sentence_vectors
from pps_fast.alignment.model import Alignment, centered_sentences, part_directions
from pps_fast.data.record import PreparedData

MAX_PAIRS = 2000
"""training pairs that calibrate; of more, as many at equal distances"""
NUM_OTHERS = 2
"""other videos of the same part that each of these sentences is asked about"""
NUM_BINS = 10
"""of equal numbers of answers, in which probabilities are compared with frequencies"""
CONDITION = (
    "a sentence and a video of the training set's kind, own and other videos equally likely; measured on training "
    "pairs, without times, by maps fitted without the pair's part of the videos"
)
_NUM_QUANTILES = 21
_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """What turns evidence into confidence, and how well it did so on training pairs.

    Attributes:
        slope, intercept: match = 1 / (1 + exp(-(slope * evidence + intercept))), where own and other videos are equally
            frequent.
        clarity_quantiles: clarity of training pairs at equal steps from the least to the largest.
        median_moment_s: median length in seconds of the moments that the model reads in the training pairs.
        num_pairs, num_others: sentences with their own videos, and with other ones.
        auc: share of (matched, other) couples in which the own video has more evidence.
        calibration_error: mean distance of match and frequency over NUM_BINS bins, for parts of the videos whose pairs
            did not fit the logistic function.
        condition: under which all of this holds, for readers of the file.
    """

    slope: float
    intercept: float
    clarity_quantiles: tuple[float, ...]
    median_moment_s: float
    num_pairs: int
    num_others: int
    auc: float
    calibration_error: float
    condition: str = CONDITION

    def match(self, evidence: Tensor) -> Tensor:
        """Returns the probability that a sentence with this evidence is about the video, in (0, 1)."""
        return torch.sigmoid(self.slope * evidence + self.intercept)

    def clarity(self, evidence: Tensor) -> Tensor:
        """Returns the share of training pairs whose curve is less clear, in [0, 1]."""
        steps = np.linspace(0, 1, len(self.clarity_quantiles))
        rank = np.interp(evidence.double().cpu().numpy(), self.clarity_quantiles, steps)
        return torch.from_numpy(rank)


def match_evidence(alignment: Alignment, curve: Tensor, start: Tensor, end: Tensor, direction: Tensor) -> Tensor:
    """(mean of s over each moment - s of the mean frame) / |M y|; 0 where M y is 0.

    Without the subtraction, which no answer within a video depends on, sentences would differ in what they score for
    any video. A standardized curve has it already.

    Args:
        curve: [m, S] s.
        start, end: [m, c] fractions of the video. A moment has the frames whose middle is inside, one at least.
        direction: [m, F] M y.
    Returns:
        [m, c] float64.
    """
    num_frames = curve.shape[1]
    first = (start * num_frames - 0.5).ceil().long().clamp(0, num_frames - 1)
    last = torch.maximum((end * num_frames - 0.5).ceil().long().clamp(0, num_frames), first + 1)
    sums = torch.nn.functional.pad(curve.double().cumsum(dim=1), (1, 0))
    mean = (sums.gather(1, last) - sums.gather(1, first)) / (last - first)
    if alignment.options.curve == "linear":
        mean = mean - (direction.double() @ alignment.frame_mean.double())[:, None]
    norm = torch.linalg.vector_norm(direction.double(), dim=1, keepdim=True)
    return (mean / norm.masked_fill(norm == 0, 1)).masked_fill(norm == 0, 0)


def clarity_evidence(curve: Tensor) -> Tensor:
    """Sum of s - mean s over its max-sum window, divided by S: [m, S] -> [m] float64."""
    away = curve.double() - curve.double().mean(dim=1, keepdim=True)
    start, end = max_sum_window(away)
    return (away * window_mask(start, end, curve.shape[1])).sum(dim=1) / curve.shape[1]


def fit_confidence(alignment: Alignment, data: PreparedData, samples: np.ndarray) -> Confidence | None:
    """Calibrates a fitted alignment on its training pairs; None where no part of the videos has two.

    Args:
        samples: [P] int64, the pairs that the alignment was fitted to.
    """
    part = part_of_pairs(data.sample_video[samples], alignment.options.parts)
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), MAX_PAIRS)).round().astype(np.int64)
    asked = samples[chosen]
    shifts = range(1, NUM_OTHERS + 1)
    videos = np.concatenate([_other_videos(data.sample_video[samples], part, shift)[chosen] for shift in shifts])
    asked_again, other_part = np.tile(asked, NUM_OTHERS), np.tile(part[chosen], NUM_OTHERS)
    is_other = videos != data.sample_video[asked_again]
    if not is_other.any():
        return None
    matched, clarity, length = _answers(alignment, data, asked, part[chosen], data.sample_video[asked])
    other, _, _ = _answers(alignment, data, asked_again[is_other], other_part[is_other], videos[is_other])
    fitted = Confidence(
        slope=0.0,
        intercept=0.0,
        clarity_quantiles=tuple(torch.quantile(clarity, torch.linspace(0, 1, _NUM_QUANTILES).double()).tolist()),
        median_moment_s=float(np.median(length.numpy() * data.duration_s[data.sample_video[asked]])),
        num_pairs=len(matched),
        num_others=len(other),
        auc=_auc(matched, other),
        calibration_error=_cross_fitted_error(matched, other, part[chosen], other_part[is_other]),
    )
    slope, intercept = fit_logistic(matched, other)
    return replace(fitted, slope=slope, intercept=intercept)


def _other_videos(sample_video: np.ndarray, part: np.ndarray, shift: int) -> np.ndarray:
    """Returns [P] int64: for each pair the video `shift` places on among those of its part, round the end."""
    other = np.empty_like(sample_video)
    for index in np.unique(part):
        members = part == index
        videos, rank = np.unique(sample_video[members], return_inverse=True)
        other[members] = videos[(rank + shift) % len(videos)]
    return other


def _answers(
    alignment: Alignment, data: PreparedData, samples: np.ndarray, part: np.ndarray, videos: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns match evidence, clarity evidence and length of the first moment of sentences in videos, [m] each."""
    device = alignment.maps.device
    raw = raw_sentence_vectors(data, samples, alignment.word_weights.cpu()).to(device)
    sentences = centered_sentences(raw, alignment.sentence_mean)
    direction = part_directions(alignment.maps[:-1], torch.from_numpy(part).to(device), sentences)
    parts = []
    for start in range(0, len(samples), _BLOCK):
        block = torch.from_numpy(data.features[videos[start : start + _BLOCK]]).to(device).float()
        along = direction[start : start + _BLOCK]
        curve = alignment.curve(alignment.frames(block), along[:, None]).squeeze(1)
        moments = alignment.read(curve, sentences[start : start + _BLOCK], 1)
        match = match_evidence(alignment, curve, moments.start, moments.end, along).squeeze(1)
        parts.append((match.cpu(), clarity_evidence(curve).cpu(), (moments.end - moments.start).squeeze(1).cpu()))
    match, clarity, length = (torch.cat(values) for values in zip(*parts, strict=True))
    return match, clarity, length


def fit_logistic(matched: Tensor, other: Tensor) -> tuple[float, float]:
    """Returns slope and intercept of P(own video) = 1 / (1 + exp(-(slope x + intercept))), both kinds weighted equally.

    Targets are those of Platt (1999), (n + 1) / (n + 2) and 1 / (n + 2), so that separable kinds have a finite slope.

    Args:
        matched, other: [n] evidence of both kinds.
    """
    values = torch.cat([matched, other]).double()
    mean, scale = values.mean(), values.std(correction=0)
    if not scale > 0:
        return 0.0, 0.0
    high, low = 1 - 1 / (len(matched) + 2), 1 / (len(other) + 2)
    target = torch.cat([torch.full_like(matched, high), torch.full_like(other, low)]).double()
    weight = torch.cat(
        [torch.full_like(matched, 0.5 / len(matched)), torch.full_like(other, 0.5 / len(other))]
    ).double()
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = line[0] * (values - mean) / scale + line[1]
        total = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
        total.backward()
        return total

    optimizer.step(loss)
    slope, intercept = line.detach().tolist()
    return slope / float(scale), intercept - slope * float(mean / scale)


def calibration_error(matched: Tensor, other: Tensor) -> float:
    """Mean distance of probability and frequency over bins of equal weight, own and other videos weighing equally.

    Args:
        matched, other: [n] probabilities of both kinds.
    """
    probability = torch.cat([matched, other]).double()
    weight = torch.cat(
        [torch.full_like(matched, 0.5 / len(matched)), torch.full_like(other, 0.5 / len(other))]
    ).double()
    is_matched = torch.cat([torch.ones_like(matched), torch.zeros_like(other)]).double()
    # equal probabilities stay in one bin
    values, rank = probability.unique(return_inverse=True)
    mass = torch.zeros(len(values), dtype=torch.float64).index_add_(0, rank, weight)
    bins = ((mass.cumsum(0) - mass / 2) * NUM_BINS).long().clamp(0, NUM_BINS - 1)[rank]
    away = weight * (probability - is_matched)
    return torch.zeros(NUM_BINS, dtype=torch.float64).index_add_(0, bins, away).abs().sum().item()


def _cross_fitted_error(matched: Tensor, other: Tensor, matched_part: np.ndarray, other_part: np.ndarray) -> float:
    """Returns the calibration error of probabilities that were fitted without the pairs of their part."""
    probabilities: tuple[list[Tensor], list[Tensor]] = ([], [])
    for index in np.unique(other_part):
        hidden = torch.from_numpy(matched_part == index), torch.from_numpy(other_part == index)
        fits = matched[~hidden[0]], other[~hidden[1]]
        # a data set of a few videos may have others in a single part
        slope, intercept = fit_logistic(*fits if all(map(len, fits)) else (matched, other))
        for kept, values, is_hidden in zip(probabilities, (matched, other), hidden, strict=True):
            kept.append(torch.sigmoid(slope * values[is_hidden] + intercept))
    return calibration_error(torch.cat(probabilities[0]), torch.cat(probabilities[1]))


def _auc(matched: Tensor, other: Tensor) -> float:
    """Returns the share of couples in which the own video has more evidence; an equal couple counts half."""
    ordered = other.sort().values
    below = torch.searchsorted(ordered, matched.contiguous())
    upto = torch.searchsorted(ordered, matched.contiguous(), right=True)
    return ((below + upto).double() / 2).mean().item() / len(other)
