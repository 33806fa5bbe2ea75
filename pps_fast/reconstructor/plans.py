"""How the reconstructor's passes are computed: the plain plan, and one that gives the same for less work.

What the shared plan saves, exactly:

* Only the best positives and their own easy negatives carry a gradient of the losses (the minimum over proposals picks
  them). All positives are scored without one; the best are then computed again, with the same dropout.
* Before the first mask enters an attention, all masks of a sample see the same: the first block's projections and
  scores of the video, and the first self-attention of the words, are computed once per sample.
* The importance of a mask reads one row of the last block, that of q_cls, so that the block computes no other.

On a CPU it also takes few masks at a time, which costs a little arithmetic and saves the time of mapping memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pps_fast.encoder.transformer import Context, Keys, Stack, repeat, take_row
from pps_fast.equations import best_proposals
from pps_fast.types import MaskSet, Reconstruction, join_masks

_CHUNK_BYTES = 20 << 20
_NO_LIMIT = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ReconstructorInput:
    """What every mask of a batch shares.

    Attributes:
        frames: [B, T, D] the kept segments.
        frame_valid: [B, T] bool.
        query: [B, n, D] hidden sentence, n = L + 2 with q_cls behind its last word; or L without the last word.
        word_valid: [B, n] bool; False for q_cls, which reads and is not read.
        num_words: [B] int64.
    """

    frames: Tensor
    frame_valid: Tensor
    query: Tensor
    word_valid: Tensor
    num_words: Tensor


@dataclass(frozen=True, kw_only=True)
class Scores:
    """C(.) of what the losses compare.

    Attributes:
        positive: [B, K] of all proposals, for ranking.
        best: [B, n] int64 the proposals with the smallest.
        best_positive: [B, n] of those.
        best_negative: [B, n, J] of their easy negatives.
        whole_video: [B].
    """

    positive: Tensor
    best: Tensor
    best_positive: Tensor
    best_negative: Tensor
    whole_video: Tensor


class Stacks(Protocol):
    """What a plan runs."""

    video_stack: Stack
    word_stack: Stack


# scores masks: MaskSet of N masks -> Reconstruction with nll [B, N]
Score = Callable[[MaskSet], Reconstruction]


class PlainPlan:
    """Every mask goes through everything."""

    @staticmethod
    def features(stacks: Stacks, shared: ReconstructorInput, masks: MaskSet) -> Tensor:
        """R^M of every mask and word token: [B, N, n, D]."""
        num_masks, key = masks.log_masks.shape[1], _flat(masks.dropout_key)
        frame_keys = Keys(valid=repeat(shared.frame_valid, num_masks), log_mask=masks.log_masks.flatten(0, 1))
        video = stacks.video_stack(repeat(shared.frames, num_masks), frame_keys, Context(dropout_key=key))
        context = Context(memory=video, memory_keys=frame_keys, dropout_key=key)
        word_keys = Keys(valid=repeat(shared.word_valid, num_masks))
        words = stacks.word_stack(repeat(shared.query, num_masks), word_keys, context)
        return words.unflatten(0, masks.log_masks.shape[:2])

    @staticmethod
    def summaries(stacks: Stacks, shared: ReconstructorInput, masks: MaskSet) -> Tensor:
        """r_cls of every mask: [B, N, D]."""
        features = PlainPlan.features(stacks, shared, masks)
        row = repeat(shared.num_words + 1, features.shape[1])
        return take_row(features.flatten(0, 1), row).view(*features.shape[:2], -1)

    @staticmethod
    def score(nll_of: Score, positives: MaskSet, negatives: MaskSet, whole_video: MaskSet, num_best: int) -> Scores:
        """C of everything, with gradients, of which the best are taken."""
        num_proposals, num_negatives = positives.log_masks.shape[1], negatives.log_masks.shape[1]
        nll = nll_of(join_masks((positives, negatives, whole_video))).nll
        positive, negative, whole = nll.split((num_proposals, num_negatives, 1), 1)
        best = best_proposals(positive, num_best)
        own = own_negatives(best, num_negatives // num_proposals)
        return Scores(
            positive=positive,
            best=best,
            best_positive=positive.gather(1, best),
            best_negative=negative.gather(1, own.flatten(1)).view(own.shape),
            whole_video=whole.squeeze(1),
        )


def masks_at_once(frames: Tensor) -> int:
    """How many masks of each sample go through the stacks together; all of them on a GPU.

    On a CPU few, so that the widest intermediate result, the packed projections of frames [B, T, D], stays well below
    32 MiB: larger blocks go back to the system when they are freed, and new ones are mapped in page by page.
    """
    if frames.device.type != "cpu":
        return _NO_LIMIT
    return max(_CHUNK_BYTES // (3 * frames.numel() * frames.element_size()), 1)


class SharedPlan:
    """Leaves out what cannot matter, and does once what masks have in common."""

    @staticmethod
    def features(stacks: Stacks, shared: ReconstructorInput, masks: MaskSet) -> Tensor:
        """R^M of every mask and word token: [B, N, n, D]."""
        return SharedPlan._in_chunks(stacks, shared, masks)

    @staticmethod
    def summaries(stacks: Stacks, shared: ReconstructorInput, masks: MaskSet) -> Tensor:
        """r_cls of every mask: [B, N, D]."""
        return SharedPlan._in_chunks(stacks, shared, masks, shared.num_words + 1).squeeze(2)

    @staticmethod
    def _in_chunks(stacks: Stacks, shared: ReconstructorInput, masks: MaskSet, row: Tensor | None = None) -> Tensor:
        """`_words` of some masks after the other, as many as `masks_at_once` says."""
        num_masks, size = masks.log_masks.shape[1], masks_at_once(shared.frames)
        sizes = tuple(min(size, num_masks - first) for first in range(0, num_masks, size))
        parts = [SharedPlan._words(stacks, shared, part, row) for part in masks.split(sizes)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    @staticmethod
    def _words(stacks: Stacks, shared: ReconstructorInput, masks: MaskSet, row: Tensor | None = None) -> Tensor:
        """Rows of the word stack, all or that at row [B] only: [B, N, n, D] or [B, N, 1, D]."""
        num_masks, key = masks.log_masks.shape[1], _flat(masks.dropout_key)
        frame_keys = Keys(valid=shared.frame_valid, log_mask=masks.log_masks)
        video = stacks.video_stack.under_masks(shared.frames, frame_keys, num_masks, Context(dropout_key=key))
        memory_keys = Keys(valid=repeat(shared.frame_valid, num_masks), log_mask=masks.log_masks.flatten(0, 1))
        context = Context(memory=video, memory_keys=memory_keys, dropout_key=key)
        row = None if row is None else repeat(row, num_masks)
        words = stacks.word_stack.under_masks(shared.query, Keys(valid=shared.word_valid), num_masks, context, row)
        return words.unflatten(0, (-1, num_masks))

    @staticmethod
    def score(nll_of: Score, positives: MaskSet, negatives: MaskSet, whole_video: MaskSet, num_best: int) -> Scores:
        """C of all positives without gradients; of the best, their negatives and the whole video with them."""
        num_proposals, num_negatives = positives.log_masks.shape[1], negatives.log_masks.shape[1]
        if num_best == num_proposals:
            # all have gradients: there is nothing to leave out
            return PlainPlan.score(nll_of, positives, negatives, whole_video, num_best)
        with torch.no_grad():
            positive = nll_of(positives).nll
        best = best_proposals(positive, num_best)
        own = own_negatives(best, num_negatives // num_proposals)
        trained = join_masks((positives.take(best), negatives.take(own.flatten(1)), whole_video))
        best_positive, best_negative, whole = nll_of(trained).nll.split((num_best, own[0].numel(), 1), 1)
        return Scores(
            positive=positive,
            best=best,
            best_positive=best_positive,
            best_negative=best_negative.view(own.shape),
            whole_video=whole.squeeze(1),
        )


def own_negatives(proposals: Tensor, num_each: int) -> Tensor:
    """Returns which easy negatives are those of some proposals: [B, n] int64 -> [B, n, J], of J for each proposal."""
    return proposals.unsqueeze(-1) * num_each + torch.arange(num_each, device=proposals.device)


def _flat(key: Tensor | None) -> Tensor | None:
    return None if key is None else key.flatten()


PLANS = {"shared": SharedPlan, "plain": PlainPlan}
