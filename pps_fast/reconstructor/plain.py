"""The plain schedule of the reconstructor's passes: every mask goes through every layer.

Paper: Section 3, "Importance-based Reconstructor", Eq. (8), as it is written. `shared.py` gets the same results with
less work.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pps_fast.encoder.transformer import Context, Keys, Stack, repeat, take_row
from pps_fast.equations import best_proposals
from pps_fast.reconstructor.words import Vocabulary
from pps_fast.types import Batch, Candidates, CandidateScores, MaskSet, ReconstructorInput, join_masks


class Layers(NamedTuple):
    """The modules that a pass runs through, in this order."""

    video_stack: Stack
    word_stack: Stack
    vocabulary: Vocabulary


def takes_ragged_rows(layers: Layers, inputs: ReconstructorInput) -> bool:
    """Whether rows of words may lie one behind another: never, every mask has a sentence of its own."""
    return False


def features(layers: Layers, inputs: ReconstructorInput, masks: MaskSet, row: Tensor | None = None) -> Tensor:
    """R^M, Eq. (8), of every mask.

    Args:
        layers: what the pass runs through.
        inputs: what all masks of a sample have in common.
        masks: N of each sample.
        row: [B] int64, the only token whose features are wanted; None for all n tokens of the query.
    Returns:
        [B, N, n, D], or [B, N, 1, D] with `row`.
    """
    num_masks = masks.log_masks.shape[1]
    dropout_key = None if masks.dropout_key is None else masks.dropout_key.flatten()
    frame_keys = Keys(valid=repeat(inputs.frame_valid, num_masks), log_mask=masks.log_masks.flatten(0, 1))
    video = layers.video_stack(repeat(inputs.frames, num_masks), frame_keys, Context(dropout_key=dropout_key))
    context = Context(memory=video, memory_keys=frame_keys, dropout_key=dropout_key)
    word_keys = Keys(valid=repeat(inputs.word_valid, num_masks))
    words = layers.word_stack(repeat(inputs.query, num_masks), word_keys, context)
    if row is not None:
        words = take_row(words, repeat(row, num_masks))
    return words.unflatten(0, masks.log_masks.shape[:2])


def score(
    layers: Layers, inputs: ReconstructorInput, candidates: Candidates, batch: Batch, num_best: int
) -> CandidateScores:
    """C of every mask in one pass, with gradients; the best positives and their negatives are taken from it.

    Args:
        layers, inputs: as for `features`.
        candidates: K positives, K * J easy negatives and the whole video.
        batch: B samples, whose words are the targets.
        num_best: how many of the best positives the losses compare.
    """
    masks = join_masks((candidates.positives, candidates.negatives, candidates.whole_video))
    nll = layers.vocabulary.reconstruct(features(layers, inputs, masks), batch).nll
    return scores_of_all(nll, candidates.positives.log_masks.shape[1], num_best)


def scores_of_all(nll: Tensor, num_proposals: int, num_best: int) -> CandidateScores:
    """Takes the best positives and their negatives from C of all masks.

    Args:
        nll: [B, K + K * J + 1] of positives, easy negatives and the whole video.
        num_proposals: K.
        num_best: as for `score`.
    """
    num_negatives = nll.shape[1] - num_proposals - 1
    positive, negative, whole_video = nll.split((num_proposals, num_negatives, 1), 1)
    best = best_proposals(positive, num_best)
    index = negatives_of(best, num_negatives // num_proposals)
    return CandidateScores(
        positive_nll=positive,
        best=best,
        best_nll=positive.gather(1, best),
        negative_nll=negative.gather(1, index.flatten(1)).view(index.shape),
        whole_video_nll=whole_video.squeeze(1),
    )


def negatives_of(proposals: Tensor, num_each: int) -> Tensor:
    """Returns the indices of the easy negatives of some proposals, each of which has J: [B, n] int64 -> [B, n, J]."""
    return proposals.unsqueeze(-1) * num_each + torch.arange(num_each, device=proposals.device)
