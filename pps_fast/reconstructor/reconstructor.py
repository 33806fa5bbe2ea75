"""Importance-based reconstructor: rebuilds the sentence from what a mask lets through.

Paper: Section 3, "Importance-based Reconstructor", Eq. (8).
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder.transformer import Stack
from pps_fast.ops.ragged_rows import ragged_rows
from pps_fast.reconstructor import plain, shared
from pps_fast.reconstructor.plain import Layers
from pps_fast.reconstructor.words import Vocabulary
from pps_fast.types import Batch, Candidates, CandidateScores, MaskSet, Reconstruction, ReconstructorInput

# each has functions `features`, `score` and `takes_ragged_rows`; by the names of `config.ReconstructorSchedule`
SCHEDULES: dict[str, ModuleType] = {"shared": shared, "plain": plain}


def kept_segments(num_segments: int, stride: int, device: torch.device) -> Tensor:
    """Segments that are mask positions: floor(linspace(0, S - 1, S // stride)), [T] int64.

    In fp32 like the published code, which for some S differs from exact arithmetic.

    Raises:
        ValueError: for fewer than 2 mask positions.
    """
    count = num_segments // stride
    if count < 2:
        raise ValueError(f"{num_segments} segments at reconstructor.stride = {stride}: fewer than 2 mask positions")
    if stride == 1:
        return torch.arange(num_segments, device=device)
    return torch.linspace(0, num_segments - 1, count, device=device).long()


class Stacks(Protocol):
    """A module with the two stacks of a transformer."""

    video_stack: Stack
    word_stack: Stack


class Reconstructor(nn.Module):
    """R^M = f_md(Q-hat, f_me(V, M), M) for N masks per sample at once, and the words it predicts.

    The schedule, `plain.py` or `shared.py`, decides how the passes are computed; both give the same results.

    Args:
        config: what is computed.
        vocab_size: V.
        borrowed: a module whose stacks are used; if None, the reconstructor builds its own.
    """

    def __init__(self, config: PPSConfig, vocab_size: int, borrowed: Stacks | None = None) -> None:
        super().__init__()
        self.config = config
        options = config.reconstructor
        # in a tuple, so that the parameters of another module are not listed a second time as this module's
        self._borrowed = (borrowed,)
        if borrowed is None:
            self.video_stack = Stack(config, options.num_layers, has_memory=False)
            self.word_stack = Stack(config, options.num_word_layers or options.num_layers, has_memory=True)
        self.vocabulary = Vocabulary(config, vocab_size)

    @property
    def schedule(self) -> ModuleType:
        """The functions that compute the passes."""
        return SCHEDULES[self.config.reconstructor.schedule]

    @property
    def layers(self) -> Layers:
        """The modules of a pass, for the schedule."""
        borrowed = self._borrowed[0]
        stacks: Stacks = self if borrowed is None else borrowed
        return Layers(stacks.video_stack, stacks.word_stack, self.vocabulary)

    def without_padding(self, inputs: ReconstructorInput, batch: Batch) -> ReconstructorInput:
        """Leaves out rows of padding where the schedule can do so, and the host knows how many rows are none."""
        num_columns, total = batch.words.shape[1], batch.total_words
        if total is None or not self.schedule.takes_ragged_rows(self.layers, inputs):
            return inputs
        return replace(
            inputs, ragged=ragged_rows(batch.num_words, num_columns, inputs.query.shape[1] - num_columns, total)
        )

    def features(self, inputs: ReconstructorInput, masks: MaskSet) -> Tensor:
        """R^M, Eq. (8): [B, N, n, D] for the n tokens of `inputs.query`, or [N, R, D] of ragged rows."""
        return self.schedule.features(self.layers, inputs, masks)

    def summaries(self, inputs: ReconstructorInput, masks: MaskSet) -> Tensor:
        """r_cls, the row of R^M at the token q_cls, of every mask: [B, N, D]."""
        return self.schedule.features(self.layers, inputs, masks, inputs.num_words + 1).squeeze(2)

    def score(self, inputs: ReconstructorInput, candidates: Candidates, batch: Batch) -> CandidateScores:
        """C of all positives, and of the best of them, their easy negatives and the whole video."""
        inputs = self.vocabulary.predicting_tokens(inputs, batch)
        return self.schedule.score(self.layers, inputs, candidates, batch, self.config.losses.num_best)

    def forward(self, inputs: ReconstructorInput, masks: MaskSet, batch: Batch) -> Reconstruction:
        """Rebuilds the sentence from each mask and scores it.

        Returns:
            logits [B, N, L, V], or [N, R, V] of ragged rows, and nll [B, N].
        """
        inputs = self.vocabulary.predicting_tokens(inputs, batch)
        return self.vocabulary.reconstruct(self.features(inputs, masks), batch, inputs.ragged)
