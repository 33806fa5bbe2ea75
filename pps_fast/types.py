"""The records that stages exchange, and the one legend of shapes.

Dimensions, used in every docstring of the project:

    B  samples in a batch (a sample is one sentence with its video)
    S  video segments (200 by default; features are resampled to them)
    T  mask positions: every `reconstructor.stride`-th segment (50 by default)
    L  word columns of the batch, padded; sample b has num_words[b] <= L words
    K  proposals          E  components (Gaussians), E = sum of n_k
    M  components of all easy negatives   J  easy negatives of a proposal (1, but 2 of kind 'sides_apart')
    N  masks per sample in one reconstructor pass
    G  sequences that run through a transformer side by side: B, or B * N of a reconstructor pass
    D  hidden width       H  attention heads       h  width of a head, D / H
    Q  queries of an attention   R  ragged rows: those of all samples, without padding
    V  vocabulary classes, class 0 is padding
    F  width of a segment feature     W  width of a word vector
    P  training pairs that an alignment is fitted to
    w  true windows of a sample, padded to the most that a sample has
    n  any other count; the line says of what

A file in which a letter means something else, or that has more, says so in its first docstring: "Letters: M samples.".

Times inside the model are fractions of the video's length, 0 to 1. Masks, losses and
statistics are fp32 (or fp64 when the model is fp64), whatever the autocast dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pps_fast.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class FeatureSizes:
    """Sizes of a model that follow from the data set, not from the config.

    Attributes:
        frame_dim: F, width of a segment feature.
        word_dim: W, width of a word vector.
        vocab_size: V, number of classes with the padding class 0.
        num_segments: S.
        sentence_dim: n, width of a vector of a whole sentence; 0 where the data set has none.
    """

    frame_dim: int
    word_dim: int
    vocab_size: int
    num_segments: int
    sentence_dim: int = 0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All inputs of a training step, its randomness included: `word_noise` and `dropout_key`.

    Attributes:
        frames: [B, S, F] segment features.
        num_frames: [B] int64, valid segments per video (S for prepared data sets).
        words: [B, L, W] word vectors, zero after the last word.
        word_ids: [B, L] int64 classes, 0 after the last word.
        num_words: [B] int64, 1 <= num_words <= L.
        hide_prob: [B, L] hiding probabilities; each row sums to 1, 0 after the last word.
        word_noise: [B, L] Gumbel noise; the words with the largest log(hide_prob) + word_noise are hidden.
        dropout_key: [B] int32, from which dropout follows (see `randomness.py`); not read in evaluation mode.
        sample_index: [B] int64, position of the sample in its data set.
        progress: [B] share of the training's epochs that has begun, above 0 to 1; 0 outside training.
        sentence: [B, n] vectors of whole sentences; None where the data set has none.
        part: [B] int64, part of the videos that an alignment is cross-fitted by (see `alignment.model`); or None.
        total_words: at least num_words.sum(), so that kernels leave out padding (see `ragged`); None where not known.
    """

    frames: Tensor
    num_frames: Tensor
    words: Tensor
    word_ids: Tensor
    num_words: Tensor
    hide_prob: Tensor
    word_noise: Tensor
    dropout_key: Tensor
    sample_index: Tensor
    progress: Tensor
    sentence: Tensor | None = None
    part: Tensor | None = None
    total_words: int | None = None

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Returns the batch on `device`, its floating fields as `dtype`."""
        moved: dict[str, Any] = {}
        for name, value in self.tensors().items():
            moved[name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the fields that are tensors by their names."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


@dataclass(frozen=True, kw_only=True)
class Components:
    """Gaussian components in the order of a `MixtureLayout`: flat, grouped by proposal (Eqs. 1-3).

    Attributes:
        center: [B, E] in (0, 1).
        width: [B, E] in (0, 1), before the division by sigma.
        masks: [B, E, T] in [0, 1].
        log_masks: [B, E, T] log(masks + 1e-10), what they add to attention scores (Eq. 8).
        exponents: [B, E, T] log(masks) without a floor, for masks that may underflow to 0 everywhere; None for masks
            whose peak is 1.
    """

    center: Tensor
    width: Tensor
    masks: Tensor
    log_masks: Tensor
    exponents: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Gaussian mixture proposals (Eq. 4) with their components and importance.

    Attributes:
        components: the E components.
        importance: [B, E], sums to 1 over the components of a proposal (Eq. 10).
        masks: [B, K, T] in [0, 1].
        log_masks: [B, K, T] log(masks + 1e-10).
        start, end: [B, K] boundaries in [0, 1].
    """

    components: Components
    importance: Tensor
    masks: Tensor
    log_masks: Tensor
    start: Tensor
    end: Tensor


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How well the sentence is reconstructed from each of N masks.

    Attributes:
        logits: [B, N, L, V]; column t predicts word t of the sentence. Of ragged rows [N, R, V].
        nll: [B, N] label-smoothed cross-entropy C(.) in nats, the mean over the sentence's targets.
    """

    logits: Tensor
    nll: Tensor


@dataclass(frozen=True, kw_only=True)
class MaskSet:
    """Masks that sentences are reconstructed from.

    Attributes:
        log_masks: [B, N, T] log(mask + 1e-10), 0 where the mask is 1.
        dropout_key: [B, N] int32, a key for each; None for no dropout.
    """

    log_masks: Tensor
    dropout_key: Tensor | None = None

    def take(self, index: Tensor) -> MaskSet:
        """Returns some masks of each sample, index [B, n] int64."""
        rows = index.unsqueeze(-1).expand(-1, -1, self.log_masks.shape[-1])
        dropout_key = None if self.dropout_key is None else self.dropout_key.gather(1, index)
        return MaskSet(log_masks=self.log_masks.gather(1, rows), dropout_key=dropout_key)

    def part(self, index: slice) -> MaskSet:
        """Returns neighboring masks of each sample, next to each other in memory."""
        dropout_key = None if self.dropout_key is None else self.dropout_key[:, index].contiguous()
        return MaskSet(log_masks=self.log_masks[:, index].contiguous(), dropout_key=dropout_key)

    def split(self, sizes: tuple[int, ...]) -> tuple[MaskSet, ...]:
        """Returns the masks in parts of these sizes."""
        dropout_keys = (None,) * len(sizes) if self.dropout_key is None else self.dropout_key.split(sizes, 1)
        parts = zip(self.log_masks.split(sizes, 1), dropout_keys, strict=True)
        return tuple(MaskSet(log_masks=log_masks, dropout_key=dropout_key) for log_masks, dropout_key in parts)


def join_masks(parts: Sequence[MaskSet]) -> MaskSet:
    """Returns the masks of all parts, one after the other.

    Raises:
        ValueError: if some parts have dropout keys and others have none.
    """
    dropout_keys = [part.dropout_key for part in parts if part.dropout_key is not None]
    if len(dropout_keys) not in (0, len(parts)):
        raise ValueError(
            f"join_masks: {len(dropout_keys)} of {len(parts)} parts have dropout keys: expected all or none"
        )
    return MaskSet(
        log_masks=torch.cat([part.log_masks for part in parts], 1),
        dropout_key=torch.cat(dropout_keys, 1) if dropout_keys else None,
    )


@dataclass(frozen=True, kw_only=True)
class ReconstructorInput:
    """Inputs of the reconstructor that all masks of a sample share.

    Attributes:
        frames: [B, T, D] the kept segments.
        frame_valid: [B, T] bool.
        query: [B, n, D] hidden sentence, n = L + 2 tokens with q_cls behind the last word; or n = L without the last
            word and q_cls.
        word_valid: [B, n] bool; False for q_cls, which attends but is not attended to.
        num_words: [B] int64.
        ragged: which rows of the query are computed, and where their features lie, [N, R, D]; None for all.
    """

    frames: Tensor
    frame_valid: Tensor
    query: Tensor
    word_valid: Tensor
    num_words: Tensor
    ragged: Ragged | None = None


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The masks that the losses compare.

    Attributes:
        positives: K of each sample.
        negatives: K * J, the J easy negatives of a proposal side by side.
        whole_video: one, the hard negative.
    """

    positives: MaskSet
    negatives: MaskSet
    whole_video: MaskSet


@dataclass(frozen=True, kw_only=True)
class CandidateScores:
    """C(.) of the masks that the losses compare; fields as in `ModelOutput`."""

    positive_nll: Tensor
    best: Tensor
    best_nll: Tensor
    negative_nll: Tensor
    whole_video_nll: Tensor


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """Output of the model: input of the losses and of inference.

    The fields of negatives and of the best are None when the model was asked to skip the negatives (inference), and
    where nothing is rebuilt.

    Attributes:
        proposals: the K positive proposals.
        positive_nll: [B, K] C of the positive proposals, for ranking; the shared schedule lets no gradient through it
            unless all proposals are trained. Where nothing is rebuilt, minus their rewards.
        negative_masks: [B, K * J, T] easy negatives, the J of a proposal side by side.
        best: [B, n] int64, k*: the proposals of smallest C, in ascending order of it.
        best_nll: [B, n] C of those.
        negative_nll: [B, n, J] C of the easy negatives of the same proposals.
        whole_video_nll: [B] C of the whole video, the hard negative.
        reward: [B, K] rewards of the positive proposals' masks against the alignment's curve, see `ops.mask_reward`;
            None for models without an alignment.
    """

    proposals: Proposals
    positive_nll: Tensor
    negative_masks: Tensor | None = None
    best: Tensor | None = None
    best_nll: Tensor | None = None
    negative_nll: Tensor | None = None
    whole_video_nll: Tensor | None = None
    reward: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LossReport:
    """The total loss and its unweighted terms, all on the device of the model.

    Attributes:
        total: scalar, the weighted sum that is differentiated.
        terms: unweighted scalar per built term, by the names of `losses.LOSS_TERMS`.
        sample_total: [B] `reconstruction` term per sample, to name the samples of a non-finite loss; where nothing is
            rebuilt, the `alignment` term.
    """

    total: Tensor
    terms: dict[str, Tensor]
    sample_total: Tensor

    def detach(self) -> LossReport:
        """Returns the report cut from the graph."""
        terms = {name: value.detach() for name, value in self.terms.items()}
        return LossReport(total=self.total.detach(), terms=terms, sample_total=self.sample_total.detach())


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Ranked moments of each sample.

    Attributes:
        spans: [B, K, 2] start and end as fractions of the video, by increasing C, or by falling reward.
        nll: [B, K] C, or minus the rewards, in the same order.
        order: [B, K] int64, which proposal stands at each rank.
        votes: [B, K] score of each ranked proposal under the selector.
        top1: [B, 2] the moment chosen by the selector.
    """

    spans: Tensor
    nll: Tensor
    order: Tensor
    votes: Tensor
    top1: Tensor
