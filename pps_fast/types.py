"""The records that stages exchange, and the one legend of shapes.

Dimensions, used in every docstring of the project:

    B  samples in a batch (a sample is one sentence with its video)
    S  video segments (200 by default; features are resampled to them)
    T  mask positions: every `reconstructor.stride`-th segment (50 by default)
    L  word columns of the batch, padded; sample b has num_words[b] <= L words
    K  proposals          E  components (Gaussians), E = sum of n_k
    M  components of all easy negatives
    N  masks per sample in one reconstructor pass
    D  hidden width       H  attention heads
    V  vocabulary classes, class 0 is padding
    F  width of a segment feature     W  width of a word vector

Times inside the model are fractions of the video's length, 0 to 1. Masks, losses and
statistics are fp32 (or fp64 when the model is fp64), whatever the autocast dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureSizes:
    """The sizes that come with a data set and not with a config.

    Attributes:
        frame_dim: F, width of a segment feature.
        word_dim: W, width of a word vector.
        vocab_size: V, number of classes with the padding class 0.
        num_segments: S.
    """

    frame_dim: int
    word_dim: int
    vocab_size: int
    num_segments: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Everything one step reads. All randomness of the step but dropout enters here, as `word_noise`.

    Attributes:
        frames: [B, S, F] segment features.
        num_frames: [B] int64, valid segments per video (S for prepared data sets).
        words: [B, L, W] word vectors, zero after the last word.
        word_ids: [B, L] int64 classes, 0 after the last word.
        num_words: [B] int64, 1 <= num_words <= L.
        hide_prob: [B, L] hiding probabilities; each row sums to 1, 0 after the last word.
        word_noise: [B, L] Gumbel noise; the words with the largest log(hide_prob) + word_noise are hidden.
        sample_index: [B] int64, position of the sample in its data set.
    """

    frames: Tensor
    num_frames: Tensor
    words: Tensor
    word_ids: Tensor
    num_words: Tensor
    hide_prob: Tensor
    word_noise: Tensor
    sample_index: Tensor

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Returns the batch on `device`, its floating fields as `dtype`."""
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Components:
    """Gaussian components in the order of a `MixtureLayout`: flat, grouped by proposal (Eqs. 1-3).

    Attributes:
        center: [B, E] in (0, 1).
        width: [B, E] in (0, 1), before the division by sigma.
        masks: [B, E, T] in [0, 1].
    """

    center: Tensor
    width: Tensor
    masks: Tensor


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Gaussian mixture proposals (Eq. 4) and what they are made of.

    Attributes:
        components: the E components.
        importance: [B, E], sums to 1 over the components of a proposal (Eq. 10).
        masks: [B, K, T] in [0, 1].
        start, end: [B, K] boundaries in [0, 1].
    """

    components: Components
    importance: Tensor
    masks: Tensor
    start: Tensor
    end: Tensor


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How well the sentence is reconstructed from each of N masks.

    Attributes:
        logits: [B, N, L, V]; column t predicts word t of the sentence.
        nll: [B, N] label-smoothed cross-entropy C(.) in nats, the mean over the sentence's targets.
    """

    logits: Tensor
    nll: Tensor


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """What the model hands to losses and inference.

    The three negatives' fields are None when the model was asked to skip them (inference).

    Attributes:
        proposals: the K positive proposals.
        positive_nll: [B, K] C of the positive proposals.
        negative_masks: [B, K, T] easy negatives.
        negative_nll: [B, K] C of the easy negatives.
        whole_video_nll: [B] C of the whole video, the hard negative.
    """

    proposals: Proposals
    positive_nll: Tensor
    negative_masks: Tensor | None = None
    negative_nll: Tensor | None = None
    whole_video_nll: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LossReport:
    """The total loss and its unweighted terms, all on the device of the model.

    Attributes:
        total: scalar, the weighted sum that is differentiated.
        terms: unweighted scalar per built term, by the names of `losses.LOSS_TERMS`.
        sample_total: [B] `reconstruction` term per sample, to name the samples of a non-finite loss.
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
        spans: [B, K, 2] start and end as fractions of the video, by increasing C.
        nll: [B, K] C in the same order.
        order: [B, K] int64, which proposal stands at each rank.
        votes: [B, K] score of each ranked proposal under the selector.
        top1: [B, 2] the moment chosen by the selector.
    """

    spans: Tensor
    nll: Tensor
    order: Tensor
    votes: Tensor
    top1: Tensor
