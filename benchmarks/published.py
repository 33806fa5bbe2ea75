"""The published PPS model (sunoh-kim/pps at 1e1d176) as a baseline: its formulation, its order of work, its costs.

Re-created in plain torch, in our own words, from the list of facts about the published code; "item n" is a number of
that list. Written to be neither cheaper nor dearer than it: whatever looks wasteful here names its item. Modules
have the names of the published state dict. Shapes are in the legend of `pps_fast.types`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.published_parts import (
    Hidden,
    Sentences,
    collate,
    draw_hidden,
    gaussian_masks,
    hidden_mask,
    padding_mask,
)
from benchmarks.published_transformer import DualTransformer, ImportanceWeights, WordPositions
from pps_fast.config import GeneratorConfig, PPSConfig, ReconstructorConfig
from pps_fast.presets import RELEASED
from pps_fast.types import Batch, FeatureSizes

# what the published training command fixes; other fields may have any value
REQUIRED: dict[str, Any] = {
    **RELEASED,
    "generator.center_source": "per_component",
    "proposals.layout": "ramp",
    "proposals.width_floor": 0.01,
    "proposals.negatives.kind": "learned",
    "reconstructor.importance": "reconstructor",
    "losses.push_normalize": True,
    "losses.pull_strategy": "distant",
}


@dataclass(frozen=True, kw_only=True)
class Positives:
    """The proposals; lists have an entry per proposal k = 1..K.

    Attributes:
        centers, widths: [B, k] each, as the masks are drawn.
        component_masks: [B, k, T] each.
        importance: [B, k] each, summing to 1.
        masks: [B, K, T].
        start, end: [B, K].
    """

    centers: list[Tensor]
    widths: list[Tensor]
    component_masks: list[Tensor]
    importance: list[Tensor]
    masks: Tensor
    start: Tensor
    end: Tensor


@dataclass(frozen=True, kw_only=True)
class PublishedOutput:
    """What the published forward hands to losses and evaluation.

    Attributes:
        positives: the proposals.
        negative_masks: [B, K, T].
        logits, negative_logits: [B, K, L, V]; position t predicts word t.
        whole_video_logits: [B, 1, L, V].
        word_ids: [B, L].
        is_target: [B, L] bool.
    """

    positives: Positives
    negative_masks: Tensor
    logits: Tensor
    negative_logits: Tensor
    whole_video_logits: Tensor
    word_ids: Tensor
    is_target: Tensor


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What all reconstructor calls of a forward share: [B, T, D], [B, T], [B, L + 2, D], [B, L + 2], [B]."""

    frames: Tensor
    is_frame: Tensor
    words: Tensor
    is_word: Tensor
    cls_slot: Tensor


class PublishedPPS(nn.Module):
    """The published model with learned negatives and Gaussian masks.

    Args:
        config: a `*_released` preset, of any size.
        sizes: the data set's sizes.
    Raises:
        ValueError: for a config that the published training command cannot compute.
    """

    def __init__(self, config: PPSConfig, sizes: FeatureSizes) -> None:
        super().__init__()
        _check(config)
        self.config = config
        width, num_proposals = config.encoder.hidden_dim, config.proposals.num_proposals
        self.mask_vec = nn.Parameter(torch.zeros(sizes.word_dim))
        self.start_vec = nn.Parameter(torch.zeros(sizes.word_dim))
        self.pred_vec_v = nn.Parameter(torch.zeros(sizes.frame_dim))
        self.pred_vec_q = nn.Parameter(torch.zeros(width))
        self.frame_fc = nn.Linear(sizes.frame_dim, width)
        self.word_fc = nn.Linear(sizes.word_dim, width)
        # l_gauss is the negatives' generator, evaluated and not used (item 24)
        self.trans_mask_generator = nn.ModuleDict(
            {name: _transformer(config, config.generator) for name in ("gauss", "l_gauss")}
        )
        num_negative = num_proposals * config.proposals.negatives.num_components
        self.fc_mask = nn.ModuleDict(
            {
                "gauss": nn.ModuleList(nn.Linear(width, 2 * k) for k in range(1, num_proposals + 1)),
                "l_gauss": nn.ModuleDict({"gauss": nn.Linear(width, 2 * num_negative)}),
            }
        )
        self.attn_func = ImportanceWeights(width)
        self.trans_reconstructor = _transformer(config, config.reconstructor)
        self.fc_comp = nn.Linear(width, sizes.vocab_size)
        self.dropout = nn.Dropout(config.encoder.dropout)
        self.positions = WordPositions(width)
        # point sampling at fp32 positions (item 19)
        count = sizes.num_segments // config.reconstructor.stride
        kept = torch.linspace(0, sizes.num_segments - 1, count, dtype=torch.float32).long()
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, batch: Batch, hidden: Hidden | None = None) -> PublishedOutput:
        """Two generators and K + 2 reconstructor calls; the same in evaluation, negatives included (item 48).

        Args:
            batch: B samples, at most D of them (item 28).
            hidden: the hidden words; without them they are drawn from numpy's global generator.
        """
        sentences = collate(batch)
        num_columns = sentences.ids.shape[1]
        frames, is_frame = self._frames(batch)
        words, is_word = self._words(sentences), padding_mask(sentences.lengths + 1, num_columns + 1)
        summary = self.trans_mask_generator["gauss"].summarize(frames, is_frame, words, is_word)[:, -1]
        # computed and discarded (item 24)
        self.trans_mask_generator["l_gauss"].summarize(frames, is_frame, words, is_word)
        hidden = draw_hidden(sentences, self.config.reconstructor.hidden_words_divisor) if hidden is None else hidden
        inputs = _Inputs(
            frames=frames[:, self.kept],
            is_frame=is_frame[:, self.kept],
            words=self._hidden_words(sentences, hidden),
            is_word=padding_mask(sentences.lengths + 1, num_columns + 2),
            cls_slot=sentences.lengths + 1,
        )
        positives, negative_masks = self._positives(summary, inputs), self._negatives(summary)
        return PublishedOutput(
            positives=positives,
            negative_masks=negative_masks,
            logits=self._logits(inputs, positives.masks),
            negative_logits=self._logits(inputs, negative_masks),
            whole_video_logits=self._logits(inputs, None),
            word_ids=sentences.ids,
            # l + 1 ones cut to L columns: a target too many for all but the longest sentence (item 31)
            is_target=is_word[:, :-1],
        )

    def _frames(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Segments with v_cls behind them, which is a key for nobody (items 7, 9): [B, S + 1, D], [B, S + 1]."""
        cls = self.pred_vec_v.expand(len(batch.frames), 1, -1)
        frames = self.frame_fc(self.dropout(torch.cat((batch.frames, cls), 1)))
        return frames, padding_mask(batch.num_frames, frames.shape[1])

    def _words(self, sentences: Sentences) -> Tensor:
        """First pass: start token, written into the input, and words (item 8): [B, L + 1, D]."""
        sentences.vectors[:, 0] = self.start_vec
        words = self.word_fc(self.dropout(sentences.vectors))
        return words + self.positions.rows(words.shape[1], words)

    def _hidden_words(self, sentences: Sentences, hidden: Hidden) -> Tensor:
        """Second pass: the words with a CLS behind them, some hidden (items 27 to 29): [B, L + 2, D]."""
        vectors = torch.cat((sentences.vectors, torch.zeros_like(sentences.vectors[:, :1])), 1)
        for sample in range(len(vectors)):
            # a scalar chosen by the position in the batch, all over the word vector (item 28)
            vectors[sample, int(sentences.lengths[sample]) + 1] = self.pred_vec_q[sample]
        words = self.word_fc(self.dropout(vectors))
        is_hidden = hidden_mask(hidden, words.shape[1], words.device).unsqueeze(-1)
        words = torch.where(is_hidden, self.word_fc(self.mask_vec), words)
        return words + self.positions.rows(words.shape[1], words)

    def _positives(self, summary: Tensor, inputs: _Inputs) -> Positives:
        """Heads, masks, importance, mixture and boundaries, proposal by proposal (items 15 to 22)."""
        num_samples, num_positions = inputs.is_frame.shape
        parts: dict[str, list[Tensor]] = {"centers": [], "widths": [], "component_masks": [], "importance": []}
        mixed, lefts, rights = [], [], []
        for k, head in enumerate(self.fc_mask["gauss"], 1):
            drawn = torch.sigmoid(head(summary)).view(-1, 2)  # [B k, 2]
            center = drawn[:, 0].view(num_samples, k)
            # the flat widths cut to B entries: sample b takes component b mod k of sample b // k (item 16)
            width = drawn[:num_samples, 1].unsqueeze(1).expand(-1, k)
            masks = gaussian_masks(
                center.flatten(), width.flatten(), self.config.proposals.sigma, num_positions
            ).unflatten(0, (num_samples, k))
            weights = torch.ones_like(center) if k == 1 else self._importance(inputs, masks)
            mixed.append((weights.unsqueeze(-1) * masks).sum(1))
            lefts.append((weights * (center - width / 2)).sum(1))
            rights.append((weights * (center + width / 2)).sum(1))
            for name, value in zip(parts, (center, width, masks, weights), strict=True):
                parts[name].append(value)
        left, right = torch.stack(lefts, 1), torch.stack(rights, 1)
        inwards = self.config.proposals.boundary_shrink * (right - left) / 2
        start, end = (left + inwards).clamp(min=0), (right - inwards).clamp(max=1)
        return Positives(**parts, masks=torch.stack(mixed, 1), start=start, end=end)

    def _importance(self, inputs: _Inputs, masks: Tensor) -> Tensor:
        """One reconstructor call for the components of one proposal (item 20): [B, k, T] -> [B, k]."""
        features = self._rebuild(inputs, masks)
        return self.attn_func(features[torch.arange(len(features), device=features.device), :, inputs.cls_slot])

    def _negatives(self, summary: Tensor) -> Tensor:
        """Sums of masks over their peaks, proposal by proposal, from the positives' g_cls (item 23): [B, K, T]."""
        options = self.config.proposals
        drawn = torch.sigmoid(self.fc_mask["l_gauss"]["gauss"](summary)).view(
            len(summary), options.num_proposals, -1, 2
        )
        mixed = []
        for k in range(options.num_proposals):
            center, width = drawn[:, k, :, 0], drawn[:, k, :, 1]
            masks = gaussian_masks(center.flatten(), width.flatten(), options.negatives.sigma, len(self.kept))
            summed = masks.unflatten(0, center.shape).sum(1)
            mixed.append(summed / summed.max(-1, keepdim=True)[0])
        return torch.stack(mixed, 1)

    def _rebuild(self, inputs: _Inputs, masks: Tensor | None) -> Tensor:
        """A reconstructor call; every mask has its own copy of frames and words: [B, N, T] -> [B, N, L + 2, D]."""
        count = 1 if masks is None else masks.shape[1]

        def repeat(value: Tensor) -> Tensor:
            return value.unsqueeze(1).expand(-1, count, *value.shape[1:]).flatten(0, 1)

        features = self.trans_reconstructor.rebuild(
            repeat(inputs.frames),
            repeat(inputs.is_frame),
            repeat(inputs.words),
            repeat(inputs.is_word),
            None if masks is None else masks.flatten(0, 1),
        )
        return features.unflatten(0, (-1, count))

    def _logits(self, inputs: _Inputs, masks: Tensor | None) -> Tensor:
        """Words predicted from each mask, or from the whole video; all slots are projected (item 30): [B, N, L, V]."""
        return self.fc_comp(self._rebuild(inputs, masks))[:, :, :-2]


def is_dead(name: str) -> bool:
    """Whether a parameter of the published state dict can never influence its output (item 24)."""
    without_memory = ("trans_mask_generator.gauss.decoder2.", "trans_reconstructor.decoder1.")
    return name.startswith(("trans_mask_generator.l_gauss.", "attn_func.fc.")) or (
        name.startswith(without_memory) and ".encoder_attn" in name
    )


def _transformer(config: PPSConfig, options: GeneratorConfig | ReconstructorConfig) -> DualTransformer:
    num_layers = (options.num_layers, options.num_word_layers or options.num_layers)
    return DualTransformer(num_layers, config.encoder.hidden_dim, config.encoder.num_heads, config.encoder.dropout)


def _check(config: PPSConfig) -> None:
    for name, expected in REQUIRED.items():
        value = reduce(getattr, name.split("."), config)
        if value != expected:
            raise ValueError(f"{name} = {value!r}: the published code has {expected!r}; use a *_released preset")
