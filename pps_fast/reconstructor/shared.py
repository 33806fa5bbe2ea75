"""The shared schedule of the reconstructor's passes: the results of `plain.py` with less work.

What it saves, exactly:

* Only the best positives and their easy negatives carry a gradient of the losses (the minimum over proposals picks
  them). All positives are scored without one; the best are then computed again, with the same dropout.
* Before the first mask enters an attention, all masks of a sample see the same: the first block's projections and
  scores of the video, and the first self-attention of the words, are computed once per sample.
* The importance of a mask reads one row of the last block, that of q_cls, so that the block computes no other.

On a CPU it also takes few masks at a time: slightly more arithmetic, but much less time for allocating memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pps_fast.encoder import fused_stack
from pps_fast.encoder.transformer import Context, Keys, repeat
from pps_fast.equations import best_proposals
from pps_fast.reconstructor.plain import Layers, negatives_of, scores_of_all
from pps_fast.types import Batch, Candidates, CandidateScores, MaskSet, ReconstructorInput, join_masks

_CHUNK_BYTES = 20 << 20
_NO_LIMIT = 1 << 30


def masks_at_once(frames: Tensor) -> int:
    """Returns how many masks of each sample go through the stacks together; all of them on a GPU.

    On a CPU few, so that the largest intermediate result, the packed projections of frames, stays well below 32 MiB:
    malloc returns larger blocks to the system, and mapping new ones page by page is slow.
    """
    if frames.device.type != "cpu":
        return _NO_LIMIT
    return max(_CHUNK_BYTES // (3 * frames.numel() * frames.element_size()), 1)


def takes_ragged_rows(layers: Layers, inputs: ReconstructorInput) -> bool:
    """Whether rows of words may lie one behind another: where fused sub-layers serve the words' stack."""
    keys, context = Keys(valid=inputs.word_valid), Context(memory=inputs.frames, memory_keys=Keys())
    return fused_stack.serves(layers.word_stack, inputs.query, keys, context, 1)


def features(layers: Layers, inputs: ReconstructorInput, masks: MaskSet, row: Tensor | None = None) -> Tensor:
    """R^M, Eq. (8), of every mask; arguments and result as `plain.features`, but [N, R, D] of ragged rows."""
    num_masks, size = masks.log_masks.shape[1], masks_at_once(inputs.frames)
    sizes = tuple(min(size, num_masks - first) for first in range(0, num_masks, size))
    results = []
    for num_part, part in zip(sizes, masks.split(sizes) if len(sizes) > 1 else (masks,), strict=True):
        dropout_key = None if part.dropout_key is None else part.dropout_key.flatten()
        frame_keys = Keys(valid=inputs.frame_valid, log_mask=part.log_masks)
        context = Context(dropout_key=dropout_key)
        video = layers.video_stack.forward_shared(inputs.frames, frame_keys, num_part, context)
        memory_keys = Keys(valid=inputs.frame_valid, log_mask=part.log_masks.flatten(0, 1))
        context = Context(memory=video, memory_keys=memory_keys, dropout_key=dropout_key, ragged=inputs.ragged)
        word_keys, rows = Keys(valid=inputs.word_valid), None if row is None else repeat(row, num_part)
        words = layers.word_stack.forward_shared(inputs.query, word_keys, num_part, context, rows)
        is_ragged = inputs.ragged is not None and row is None
        results.append(words if is_ragged else words.unflatten(0, (-1, num_part)))
    return results[0] if len(results) == 1 else torch.cat(results, 0 if is_ragged else 1)


def score(
    layers: Layers, inputs: ReconstructorInput, candidates: Candidates, batch: Batch, num_best: int
) -> CandidateScores:
    """C of all positives without gradients; of the best, their negatives and the whole video with them.

    Arguments as for `plain.score`.
    """
    positives, negatives = candidates.positives, candidates.negatives
    num_proposals, num_negatives = positives.log_masks.shape[1], negatives.log_masks.shape[1]
    if num_best == num_proposals:
        # all positives are trained, so that no gradient can be left out
        masks = join_masks((positives, negatives, candidates.whole_video))
        nll = layers.vocabulary.reconstruct(features(layers, inputs, masks), batch, inputs.ragged).nll
        return scores_of_all(nll, num_proposals, num_best)
    with torch.no_grad():
        positive = layers.vocabulary.reconstruct(features(layers, inputs, positives), batch, inputs.ragged).nll
    best = best_proposals(positive, num_best)
    index = negatives_of(best, num_negatives // num_proposals)
    trained = join_masks((positives.take(best), negatives.take(index.flatten(1)), candidates.whole_video))
    nll = layers.vocabulary.reconstruct(features(layers, inputs, trained), batch, inputs.ragged).nll
    best_nll, negative, whole_video = nll.split((num_best, index[0].numel(), 1), 1)
    return CandidateScores(
        positive_nll=positive,
        best=best,
        best_nll=best_nll,
        negative_nll=negative.view(index.shape),
        whole_video_nll=whole_video.squeeze(1),
    )
