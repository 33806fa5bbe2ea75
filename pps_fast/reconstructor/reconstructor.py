"""Importance-based reconstructor: rebuilds the sentence from what a mask lets through.

Paper: Section 3, "Importance-based Reconstructor", Eq. (8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder.transformer import Keys, Stack
from pps_fast.ops.reconstruction_nll import reconstruction_nll
from pps_fast.reconstructor.targets import target_columns
from pps_fast.types import Batch, Reconstruction


@dataclass(frozen=True, kw_only=True)
class ReconstructorInput:
    """What every mask of a batch shares.

    Attributes:
        frames: [B, T, D] the kept segments.
        frame_valid: [B, T] bool.
        query: [B, L + 2, D] hidden sentence, q_cls behind its last word.
        word_valid: [B, L + 2] bool; False for q_cls, which reads and is not read.
        num_words: [B] int64.
    """

    frames: Tensor
    frame_valid: Tensor
    query: Tensor
    word_valid: Tensor
    num_words: Tensor


def kept_segments(num_segments: int, stride: int, device: torch.device) -> Tensor:
    """Segments that are mask positions: floor(linspace(0, S - 1, S // stride)), [T] int64.

    In fp32 like the published code, which for some S differs from exact arithmetic.
    """
    count = num_segments // stride
    if count < 2:
        raise ValueError(f"{num_segments} segments at reconstructor.stride = {stride}: fewer than 2 mask positions")
    if stride == 1:
        return torch.arange(num_segments, device=device)
    return torch.linspace(0, num_segments - 1, count, device=device).long()


class Reconstructor(nn.Module):
    """R^M = f_md(Q-hat, f_me(V, M), M) for N masks per sample at once, and the words it predicts."""

    def __init__(self, config: PPSConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        options = config.reconstructor
        self.video_stack = Stack(config, options.num_layers, has_memory=False)
        self.word_stack = Stack(config, options.num_word_layers or options.num_layers, has_memory=True)
        self.vocabulary = nn.Linear(config.encoder.hidden_dim, vocab_size)

    def features(self, shared: ReconstructorInput, masks: Tensor) -> Tensor:
        """R^M, Eq. (8).

        Args:
            masks: [B, N, T] in [0, 1].
        Returns:
            [B, N, L + 2, D].
        """
        num_samples, num_masks, _ = masks.shape
        repeat = _Repeat(num_masks)
        frame_keys = Keys(valid=repeat(shared.frame_valid), mask=masks.flatten(0, 1))
        word_keys = Keys(valid=repeat(shared.word_valid))
        video = self.video_stack(repeat(shared.frames), frame_keys)
        words = self.word_stack(repeat(shared.query), word_keys, memory=video, memory_keys=frame_keys)
        return words.unflatten(0, (num_samples, num_masks))

    def summaries(self, shared: ReconstructorInput, masks: Tensor) -> Tensor:
        """r_cls of every mask: [B, N, T] -> [B, N, D]."""
        features = self.features(shared, masks)
        slot = (shared.num_words + 1)[:, None, None, None].expand(-1, features.shape[1], 1, features.shape[-1])
        return features.gather(2, slot).squeeze(2)

    def forward(self, shared: ReconstructorInput, masks: Tensor, batch: Batch) -> Reconstruction:
        """Rebuilds the sentence from each mask and scores it.

        Args:
            masks: [B, N, T].
        Returns:
            logits [B, N, L, V] and nll [B, N].
        """
        options = self.config.reconstructor
        num_columns = batch.word_ids.shape[1]
        is_end_kept = options.target_length == "end_of_sentence"
        num_targets = num_columns + is_end_kept
        logits = self.vocabulary(self.features(shared, masks)[:, :, :num_targets])
        targets = F.pad(batch.word_ids, (0, num_targets - num_columns))
        is_target = target_columns(batch.num_words, num_targets, options.target_length)
        nll = reconstruction_nll(logits, targets, is_target, options.label_smoothing, backend=self.config.backend)
        return Reconstruction(logits=logits[:, :, :num_columns], nll=nll)


class _Repeat:
    """Repeats each sample once per mask: [B, ...] -> [B * N, ...]."""

    def __init__(self, num_masks: int) -> None:
        self.num_masks = num_masks

    def __call__(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1).expand(-1, self.num_masks, *x.shape[1:]).flatten(0, 1)
