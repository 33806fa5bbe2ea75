"""Fits the alignment of sentences and frames in closed form, from pairs of video and sentence alone.

No time and no duration is read. Covariances are sums over pairs in float64, collected video by video in one pass a
round, so that any number of pairs fits and features may lie on disk; the same data give the same bits.

Letters: p pairs of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pps_fast.alignment.equations import (
    alignment_map,
    attention_pooling,
    bag_of_words,
    linear_curve,
    smoothed_frames,
    smoothing_window,
    unit,
    window_pooling,
)
from pps_fast.alignment.model import NUM_PARTS, FittedAlignment, centered_sentences, part_directions, uses_words
from pps_fast.alignment.priors import fit_priors
from pps_fast.config import AlignmentConfig, FramePooling
from pps_fast.data.record import PreparedData

MAX_WORD_WEIGHT = 6.0
"""of log(sentences / sentences with the word)"""
# frames of a block of videos, and of all videos that are kept between the passes
_BLOCK_BYTES, _HELD_BYTES = 2**25, 2**29


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


def part_of_pairs(sample_video: np.ndarray) -> np.ndarray:
    """Returns [P] int64, the part of each pair's video: its rank among the pairs' videos modulo NUM_PARTS.

    Args:
        sample_video: [P] video of each pair.
    """
    _, rank = np.unique(sample_video, return_inverse=True)
    return rank % NUM_PARTS


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
        ValueError: for `options.sentences` = 'vectors' and a data set without vectors of sentences.
    """
    use_words = uses_words(options, data.sizes)
    weights = word_weights(data.word_ids[samples], len(data.words)) if use_words else torch.zeros(0)
    raw = raw_sentence_vectors(data, samples, weights)
    sentence_mean = raw.double().mean(dim=0).float()
    pairs = TrainingPairs(data, samples, centered_sentences(raw, sentence_mean), options, torch.device(device))
    sums = POOLINGS[options.pooling](pairs, options, progress)
    alignment = sums.fit()
    values, vectors = torch.linalg.eigh(sums.sentence_moment())
    maps = torch.stack([*(sums.fit(without=part) for part in range(NUM_PARTS)), alignment]).float()
    return FittedAlignment(
        maps=maps.cpu(),
        **fit_priors(pairs, maps, options, progress),
        word_weights=weights,
        sentence_mean=sentence_mean,
        frame_mean=pairs.frame_mean().float().cpu(),
        spread=(alignment @ (vectors * values.clamp_min(0).sqrt())).float().cpu(),
    )


class TrainingPairs:
    """The pairs of a fit, in blocks of whole videos that fit into little memory.

    Args:
        sentences: [P, n] float32 y of the samples.
    """

    def __init__(
        self,
        data: PreparedData,
        samples: np.ndarray,
        sentences: Tensor,
        options: AlignmentConfig,
        device: torch.device,
    ) -> None:
        self.options, self.device = options, device
        self.count, self.num_segments = len(samples), data.features.shape[1]
        self._features = data.features
        self._videos, rank = np.unique(data.sample_video[samples], return_inverse=True)
        # pairs by video, so that those of a block of videos lie side by side
        order = np.argsort(rank, kind="stable")
        self._rank, self._sentences = torch.from_numpy(rank[order]), sentences[torch.from_numpy(order)]
        self._window = smoothing_window(data.features.shape[1], options.smoothing)
        num_bytes = 4 * data.features.shape[1] * data.features.shape[2]
        self._block = max(_BLOCK_BYTES // num_bytes, 1)
        is_small = len(self._videos) * num_bytes <= _HELD_BYTES
        self._held: dict[int, Tensor] | None = {} if is_small else None
        self._total = torch.zeros(data.features.shape[2], dtype=torch.float64, device=device)

    def sums(self, pool: Pooling, partition: Partition, progress: bool) -> PairSums:
        """Returns the sums over all pairs: one pass over the features.

        Args:
            pool: makes the vectors of pairs.
            partition: ranks of videos -> their parts, by which the sums are kept apart.
        """
        sums = PairSums(self._features.shape[2], self._sentences.shape[1], self.options, self.device)
        self._total.zero_()
        starts = range(0, len(self._videos), self._block)
        for start in tqdm(starts, desc="align", unit="block", disable=None if progress else True, leave=False):
            frames = self._frames(start)
            self._total += frames.sum(dim=1).double().sum(dim=0)
            rank = torch.arange(start, start + len(frames))
            position, is_pair = self._pairs_of(rank)
            sentences = self._sentences[position].to(self.device)  # [videos, n, W]
            pooled = pool(frames, sentences, rank.to(self.device))
            part = partition(rank)[:, None].expand_as(is_pair)[is_pair]
            is_pair = is_pair.to(self.device)
            sums.add(part, pooled[is_pair], sentences[is_pair])
        return sums

    def curves(self, maps: Tensor, progress: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields linear curves [p, S] and sentences [p, n] of the pairs, each by the map without its part."""
        starts = range(0, len(self._videos), self._block)
        for start in tqdm(starts, desc="align", unit="block", disable=None if progress else True, leave=False):
            frames = self._frames(start)
            rank = torch.arange(start, start + len(frames))
            position, is_pair = self._pairs_of(rank)
            sentences = self._sentences[position].to(self.device)
            curve = linear_curve(frames, part_directions(maps[:NUM_PARTS], _by_rank(rank.to(self.device)), sentences))
            yield curve[is_pair.to(self.device)], sentences[is_pair.to(self.device)]

    def _pairs_of(self, rank: Tensor) -> tuple[Tensor, Tensor]:
        """Returns positions of the pairs of some videos, [videos, n] int64, and which of them exist, bool."""
        first = torch.searchsorted(self._rank, rank)
        count = torch.searchsorted(self._rank, rank, right=True) - first
        column = torch.arange(int(count.max()))
        is_pair = column < count[:, None]
        return first[:, None] + torch.where(is_pair, column, 0), is_pair

    def frame_mean(self) -> Tensor:
        """Returns [F] float64, the mean of the videos' smoothed frames; after a first pass."""
        return self._total / (len(self._videos) * self._features.shape[1])

    def _frames(self, start: int) -> Tensor:
        """Returns [videos, S, F] float32 smoothed unit frames of the block of videos that begins at a rank."""
        if self._held is not None and start in self._held:
            return self._held[start]
        block = torch.from_numpy(self._features[self._videos[start : start + self._block]]).to(self.device)
        frames = smoothed_frames(unit(block.float()), self._window)
        if self._held is not None:
            self._held[start] = frames
        return frames


class PairSums:
    """Sums over pairs, kept apart for the parts of the videos: all that a fit needs, in float64.

    Args:
        frame_dim, sentence_dim: F and n.
    """

    def __init__(self, frame_dim: int, sentence_dim: int, options: AlignmentConfig, device: torch.device) -> None:
        self._options = options
        width = frame_dim + sentence_dim + 1
        self._frame_dim = frame_dim
        # of the products of [z, y, 1] with itself, so that counts, sums and products are one matrix
        self._products = torch.zeros(NUM_PARTS, width, width, dtype=torch.float64, device=device)

    def add(self, part: Tensor, pooled: Tensor, sentences: Tensor) -> None:
        """Adds p pairs: their parts [p], pooled frames [p, F] and sentences [p, n]."""
        rows = torch.cat([pooled, sentences, torch.ones_like(sentences[:, :1])], dim=1).double()
        for index in torch.unique(part).tolist():
            members = rows[part.to(rows.device) == index]
            self._products[index] += members.T @ members

    def fit(self, without: int | None = None) -> Tensor:
        """Returns [F, n] float64 M of all pairs, or of all but those of a part (of all, where nothing is left)."""
        products = self._products.sum(dim=0)
        if without is not None and products[-1, -1] > self._products[without, -1, -1]:
            products = products - self._products[without]
        mean = products[-1, :-1] / products[-1, -1]
        covariance = products[:-1, :-1] / products[-1, -1] - torch.outer(mean, mean)
        size = self._frame_dim
        ridges = (self._options.frame_ridge, self._options.sentence_ridge)
        return alignment_map(covariance[:size, :size], covariance[size:, size:], covariance[:size, size:], ridges)

    def sentence_moment(self) -> Tensor:
        """Returns [n, n] float64, the mean of y y^T over all pairs."""
        products = self._products.sum(dim=0)
        return products[self._frame_dim : -1, self._frame_dim : -1] / products[-1, -1]


# frames [videos, S, F], sentences [videos, n, W], ranks of the videos [videos] -> [videos, n, F]
Pooling = Callable[[Tensor, Tensor, Tensor], Tensor]
Partition = Callable[[Tensor], Tensor]


def _by_rank(rank: Tensor) -> Tensor:
    return rank % NUM_PARTS


def _by_neighbors(rank: Tensor) -> Tensor:
    return rank // NUM_PARTS % NUM_PARTS


def _mean_pooling(frames: Tensor, sentences: Tensor, rank: Tensor) -> Tensor:
    return frames.mean(dim=1, keepdim=True).expand(-1, sentences.shape[1], -1)


def _in_sample_windows(alignment: Tensor, frames: Tensor, sentences: Tensor, rank: Tensor) -> Tensor:
    return window_pooling(frames, linear_curve(frames, sentences @ alignment.T))


def _cross_attention(
    maps: Tensor, partition: Partition, sharpness: float, frames: Tensor, sentences: Tensor, rank: Tensor
) -> Tensor:
    direction = part_directions(maps, partition(rank), sentences)
    return attention_pooling(frames, linear_curve(frames, direction), sharpness)


def _fit_mean(pairs: TrainingPairs, options: AlignmentConfig, progress: bool) -> PairSums:
    """Pools the mean of all frames."""
    return pairs.sums(_mean_pooling, _by_rank, progress)


def _fit_once(pairs: TrainingPairs, options: AlignmentConfig, progress: bool) -> PairSums:
    """Pools again, once, over the max-sum window of each training pair's own curve."""
    alignment = _fit_mean(pairs, options, progress).fit().float()
    return pairs.sums(partial(_in_sample_windows, alignment), _by_rank, progress)


def _fit_cross(pairs: TrainingPairs, options: AlignmentConfig, progress: bool) -> PairSums:
    """Pools again, twice, by the curves that maps make which have not seen the video's part."""
    second = _by_neighbors if options.curve == "standardized" else _by_rank
    sums = _fit_mean(pairs, options, progress)
    for partition, following in ((_by_rank, second), (second, _by_rank)):
        maps = torch.stack([sums.fit(without=part) for part in range(NUM_PARTS)]).float()
        sums = pairs.sums(partial(_cross_attention, maps, partition, options.sharpness), following, progress)
    return sums


POOLINGS: dict[FramePooling, Callable[[TrainingPairs, AlignmentConfig, bool], PairSums]] = {
    "mean": _fit_mean,
    "once": _fit_once,
    "cross": _fit_cross,
}
"""by the strings of `config.FramePooling`"""
