"""Gaussian mixture proposal generator: from video and query to the summary g_cls the heads read.

Paper: Section 3, "Gaussian Mixture Proposal Generator".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder.transformer import Context, Keys, Stack


class Generator(nn.Module):
    """G = f_td(V-hat, f_te(Q)); g_cls is its last row."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        options = config.generator
        self.word_stack = Stack(config, options.num_word_layers or options.num_layers, has_memory=False)
        self.video_stack = Stack(config, options.num_layers, has_memory=True)

    def forward(
        self, frames: Tensor, frame_valid: Tensor, query: Tensor, word_valid: Tensor, key: Tensor | None
    ) -> Tensor:
        """Summarises video and query.

        Args:
            frames: [B, S + 1, D], v_cls last.
            frame_valid: [B, S + 1] bool; False for v_cls, which reads and is not read.
            query: [B, L + 1, D].
            word_valid: [B, L + 1] bool.
            key: [B] int32 of the samples' dropout; None for no dropout.
        Returns:
            [B, D] g_cls.
        """
        word_keys = Keys(valid=word_valid)
        words = self.word_stack(query, word_keys, Context(dropout_key=key))
        context = Context(memory=words, memory_keys=word_keys, dropout_key=key)
        last = torch.full_like(frames[:, 0, 0], frames.shape[1] - 1, dtype=torch.int64)
        return self.video_stack.at_row(frames, last, Keys(valid=frame_valid), context)
