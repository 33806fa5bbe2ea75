"""Fits the alignment of sentences and frames in closed form, from pairs of video and sentence alone.

No time and no duration is read. Covariances are sums over pairs in float64, collected video by video in one pass a
round, so that any number of pairs fits and features may lie on disk; the same data give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pps_fast.alignment.equations import (
    attention_pooling,
    bag_of_words,
    linear_curve,
    spread_curve,
    unit,
    window_pooling,
)
from pps_fast.alignment.model import FittedAlignment, centered_sentences, part_directions, uses_words
from pps_fast.alignment.pairs import PairSums, Partition, TrainingPairs, by_neighbors, by_rank
from pps_fast.alignment.priors import fit_priors
from pps_fast.alignment.zero_shot import identity_alignment
from pps_fast.config import AlignmentConfig, FramePooling
from pps_fast.data.record import PreparedData

MAX_WORD_WEIGHT = 6.0
"""of log(sentences / sentences with the word)"""


def word_weights(word_ids: np.ndarray, num_words: int) -> Tensor:
    """Returns [V] float32 idf(w) = min(log(P / max(sentences with w, 1)), 6).

    Args:
        word_ids: [P, L] int64 classes of the training sentences, 0 after the last word.
        num_words: V.
    """
    ordered = np.sort(word_ids, axis=1)
    is_first = np.ones_like(ordered, dtype=bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    counts = np.bincount(ordered[is_first], minlength=num_words)
    weights = np.minimum(np.log(len(word_ids) / np.maximum(counts, 1)), MAX_WORD_WEIGHT)
    weights[0] = 0.0
    return torch.from_numpy(weights.astype(np.float32))


def part_of_pairs(sample_video: np.ndarray, num_parts: int) -> np.ndarray:
    """Returns [P] int64, the part of each pair's video: its rank among the pairs' videos modulo `num_parts`.

    Args:
        sample_video: [P] video of each pair.
    """
    _, rank = np.unique(sample_video, return_inverse=True)
    return rank % num_parts


def raw_sentence_vectors(data: PreparedData, samples: np.ndarray, weights: Tensor) -> Tensor:
    """Returns [P, n] float32 unit vectors: weighted sums of word vectors, weights [V]; the data set's own for [0]."""
    if len(weights):
        word_ids, vectors = torch.from_numpy(data.word_ids[samples]), torch.from_numpy(data.word_vectors)
        blocks = (bag_of_words(block, vectors[block], weights) for block in word_ids.split(4096))
        return torch.cat([unit(block) for block in blocks])
    if data.sentence_vectors is None:
        raise ValueError("alignment: the data set has no sentence vectors; prepare it with --sentence-vectors")
    return unit(torch.from_numpy(data.sentence_vectors[samples]))


def fit_alignment(
    data: PreparedData,
    samples: np.ndarray,
    options: AlignmentConfig,
    device: torch.device | str = "cpu",
    *,
    progress: bool = False,
) -> FittedAlignment:
    """Fits an alignment to some pairs of a data set.

    Args:
        samples: [P] int64 training pairs, at least one.
        options: pooling, ridges and smoothing.
        device: where products are computed.
        progress: show on stderr how far the passes over the data are.
    Raises:
        ValueError: for `options.sentences` = 'vectors' and a data set without vectors of sentences, and for
            `options.map` = 'identity' and frames and sentences that are not of one joint encoder.
    """
    if options.map == "identity":
        return identity_alignment(data.sizes, options)
    use_words = uses_words(options, data.sizes)
    weights = word_weights(data.word_ids[samples], len(data.words)) if use_words else torch.zeros(0)
    raw = raw_sentence_vectors(data, samples, weights)
    sentence_mean = raw.double().mean(dim=0).float()
    pairs = TrainingPairs(data, samples, centered_sentences(raw, sentence_mean), options, torch.device(device))
    sums = POOLINGS[options.pooling](pairs, options, progress)
    alignment = sums.fit()
    maps = torch.cat([sums.maps_without_parts(), alignment[None]]).float()
    return FittedAlignment(
        maps=maps.cpu(),
        **fit_priors(pairs, maps, options, progress),
        word_weights=weights,
        sentence_mean=sentence_mean,
        frame_mean=pairs.frame_mean().float().cpu(),
        spread=(alignment @ sums.sentence_root()).float().cpu(),
    )


def _mean_pooling(frames: Tensor, sentences: Tensor, rank: Tensor) -> Tensor:
    return frames.mean(dim=1, keepdim=True).expand(-1, sentences.shape[1], -1)


def _in_sample_windows(alignment: Tensor, frames: Tensor, sentences: Tensor, rank: Tensor) -> Tensor:
    return window_pooling(frames, linear_curve(frames, sentences @ alignment.T))


@dataclass(frozen=True)
class _CrossAttention:
    """Weights frames by curves of maps that have not seen the part of their video.

    Attributes:
        maps, spreads: [parts, F, n] M without each part, and the root of its spread over all training sentences.
        mean: [F] of the videos' frames.
    """

    maps: Tensor
    spreads: Tensor
    mean: Tensor
    partition: Partition
    options: AlignmentConfig

    def __call__(self, frames: Tensor, sentences: Tensor, rank: Tensor) -> Tensor:
        part = self.partition(rank, self.options.parts)
        direction = part_directions(self.maps, part, sentences)
        if self.options.pooling_curve == "linear":
            return attention_pooling(frames, linear_curve(frames, direction), self.options.sharpness)
        curve = frames.new_zeros(len(frames), sentences.shape[1], frames.shape[1])
        for index, spread in enumerate(self.spreads):
            of_part = part == index
            curve[of_part] = spread_curve(frames[of_part], direction[of_part], self.mean, spread)
        return attention_pooling(frames, curve, self.options.sharpness)


def _fit_mean(pairs: TrainingPairs, options: AlignmentConfig, progress: bool) -> PairSums:
    """Pools the mean of all frames."""
    return pairs.sums(_mean_pooling, by_rank, progress)


def _fit_once(pairs: TrainingPairs, options: AlignmentConfig, progress: bool) -> PairSums:
    """Pools again, once, over the max-sum window of each training pair's own curve."""
    alignment = _fit_mean(pairs, options, progress).fit().float()
    return pairs.sums(partial(_in_sample_windows, alignment), by_rank, progress)


def _fit_cross(pairs: TrainingPairs, options: AlignmentConfig, progress: bool) -> PairSums:
    """Pools again, twice, by the curves that maps make which have not seen the video's part."""
    second = by_neighbors if options.curve == "standardized" else by_rank
    sums = _fit_mean(pairs, options, progress)
    for partition, following in ((by_rank, second), (second, by_rank)):
        maps = sums.maps_without_parts()
        spreads = (maps @ sums.sentence_root()).float()
        pool = _CrossAttention(maps.float(), spreads, pairs.frame_mean().float(), partition, options)
        sums = pairs.sums(pool, following, progress)
    return sums


POOLINGS: dict[FramePooling, Callable[[TrainingPairs, AlignmentConfig, bool], PairSums]] = {
    "mean": _fit_mean,
    "once": _fit_once,
    "cross": _fit_cross,
}
"""by the strings of `config.FramePooling`"""
