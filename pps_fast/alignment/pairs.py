"""The training pairs of an alignment, block by block, and the sums over them that a fit needs.

Letters: p pairs of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pps_fast.alignment.equations import alignment_map, linear_curve
from pps_fast.alignment.model import align_frames, align_width, part_directions
from pps_fast.config import AlignmentConfig
from pps_fast.data.record import PreparedData

# frames of a block of videos, and of all videos that are kept between the passes
_BLOCK_BYTES, _HELD_BYTES = 2**25, 2**29
# frames [videos, S, F], sentences [videos, n, W], ranks of the videos [videos] -> [videos, n, F]
Pooling = Callable[[Tensor, Tensor, Tensor], Tensor]
# ranks of the videos and number of parts -> their parts
Partition = Callable[[Tensor, int], Tensor]


def by_rank(rank: Tensor, num_parts: int) -> Tensor:
    """The part of a video: its rank among the training videos modulo the number of parts."""
    return rank % num_parts


def by_neighbors(rank: Tensor, num_parts: int) -> Tensor:
    """Another division, in which neighbors share a part."""
    return rank // num_parts % num_parts


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
        self.frame_dim = align_width(data.features.shape[2], options)
        num_bytes = 4 * self.num_segments * self.frame_dim
        self._block = max(_BLOCK_BYTES // num_bytes, 1)
        is_small = len(self._videos) * num_bytes <= _HELD_BYTES
        self._held: dict[int, Tensor] | None = {} if is_small else None
        self._total = torch.zeros(self.frame_dim, dtype=torch.float64, device=device)

    def sums(self, pool: Pooling, partition: Partition, progress: bool) -> PairSums:
        """Returns the sums over all pairs: one pass over the features.

        Args:
            pool: makes the vectors of pairs.
            partition: ranks of videos and number of parts -> their parts, by which the sums are kept apart.
        """
        sums = PairSums(self.frame_dim, self._sentences.shape[1], self.options, self.device)
        self._total.zero_()
        starts = range(0, len(self._videos), self._block)
        for start in tqdm(starts, desc="align", unit="block", disable=None if progress else True, leave=False):
            frames = self._frames(start)
            self._total += frames.sum(dim=1).double().sum(dim=0)
            rank = torch.arange(start, start + len(frames))
            position, is_pair = self._pairs_of(rank)
            sentences = self._sentences[position].to(self.device)  # [videos, n, W]
            pooled = pool(frames, sentences, rank.to(self.device))
            part = partition(rank, self.options.parts)[:, None].expand_as(is_pair)[is_pair]
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
            part = by_rank(rank.to(self.device), self.options.parts)
            curve = linear_curve(frames, part_directions(maps[:-1], part, sentences))
            yield curve[is_pair.to(self.device)], sentences[is_pair.to(self.device)]

    def _pairs_of(self, rank: Tensor) -> tuple[Tensor, Tensor]:
        """Returns positions of the pairs of some videos, [videos, n] int64, and which of them exist, bool."""
        first = torch.searchsorted(self._rank, rank)
        count = torch.searchsorted(self._rank, rank, right=True) - first
        column = torch.arange(int(count.max()))
        is_pair = column < count[:, None]
        return first[:, None] + torch.where(is_pair, column, 0), is_pair

    def frame_mean(self) -> Tensor:
        """Returns [F] float64, the mean of the videos' frames; after a first pass."""
        return self._total / (len(self._videos) * self.num_segments)

    def _frames(self, start: int) -> Tensor:
        """Returns [videos, S, F] float32, `align_frames` of the block of videos that begins at a rank."""
        if self._held is not None and start in self._held:
            return self._held[start]
        block = torch.from_numpy(self._features[self._videos[start : start + self._block]]).to(self.device)
        frames = align_frames(block.float(), self.options)
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
        self._products = torch.zeros(options.parts, width, width, dtype=torch.float64, device=device)

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

    def maps_without_parts(self) -> Tensor:
        """Returns [parts, F, n] float64 M of all pairs but those of each part."""
        return torch.stack([self.fit(without=part) for part in range(self._options.parts)])

    def sentence_root(self) -> Tensor:
        """Returns [n, n] float64 R with R R^T the mean of y y^T over all pairs."""
        products = self._products.sum(dim=0)
        moment = products[self._frame_dim : -1, self._frame_dim : -1] / products[-1, -1]
        values, vectors = torch.linalg.eigh(moment)
        return vectors * values.clamp_min(0).sqrt()
