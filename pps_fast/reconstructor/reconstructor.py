"""Importance-based reconstructor: rebuilds the sentence from what a mask lets through.

Paper: Section 3, "Importance-based Reconstructor", Eq. (8).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder.transformer import Stack
from pps_fast.ops.reconstruction_nll import reconstruction_nll
from pps_fast.reconstructor.plans import PLANS, ReconstructorInput, Scores, Stacks
from pps_fast.reconstructor.words import target_columns
from pps_fast.types import Batch, MaskSet, Reconstruction


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
    """R^M = f_md(Q-hat, f_me(V, M), M) for N masks per sample at once, and the words it predicts.

    Args:
        config: what is computed.
        vocab_size: V.
        borrowed: stacks that belong to another module, to run instead of own ones.
    """

    def __init__(self, config: PPSConfig, vocab_size: int, borrowed: Stacks | None = None) -> None:
        super().__init__()
        self.config = config
        options = config.reconstructor
        self.plan = PLANS[options.plan]
        # in a tuple, so that their parameters are not listed a second time as ours
        self._borrowed = (borrowed,)
        if borrowed is None:
            self.video_stack = Stack(config, options.num_layers, has_memory=False)
            self.word_stack = Stack(config, options.num_word_layers or options.num_layers, has_memory=True)
        self.vocabulary = nn.Linear(config.encoder.hidden_dim, vocab_size)

    @property
    def stacks(self) -> Stacks:
        """What the passes run through."""
        return self if self._borrowed[0] is None else self._borrowed[0]

    def features(self, shared: ReconstructorInput, masks: MaskSet) -> Tensor:
        """R^M, Eq. (8): [B, N, n, D] for the n tokens of `shared.query`."""
        return self.plan.features(self.stacks, shared, masks)

    def summaries(self, shared: ReconstructorInput, masks: MaskSet) -> Tensor:
        """r_cls of every mask, [B, N, D]."""
        return self.plan.summaries(self.stacks, shared, masks)

    def score(
        self, shared: ReconstructorInput, positives: MaskSet, negatives: MaskSet, whole_video: MaskSet, batch: Batch
    ) -> Scores:
        """C of all positives, of the best ones and of what those must beat (see `plans.Scores`).

        Args:
            positives, negatives: K and K * J masks of each sample.
            whole_video: one of each.
        """
        num_best = self.config.losses.num_best
        return self.plan.score(partial(self, shared, batch=batch), positives, negatives, whole_video, num_best)

    def forward(self, shared: ReconstructorInput, masks: MaskSet, batch: Batch) -> Reconstruction:
        """Rebuilds the sentence from each mask and scores it.

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
