"""Gaussian mixture proposal generator: from video and query to the summary g_cls the heads read.

Paper: Section 3, "Gaussian Mixture Proposal Generator".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.encoder.transformer import Context, Keys, Stack


def _cls_row(frame_valid: Tensor) -> Tensor:
    """The row of v_cls, behind the last frame."""
    return torch.full_like(frame_valid[:, 0], frame_valid.shape[1] - 1, dtype=torch.int64)


def _last_frame_row(frame_valid: Tensor) -> Tensor:
    """The last frame that is not padding, which has seen all others."""
    return frame_valid.sum(1) - 1


# frame_valid [B, n] -> the row that is the summary, [B] int64
FRAME_SUMMARIES = {"cls": _cls_row, "last_frame": _last_frame_row}


class Generator(nn.Module):
    """G = f_td(V-hat, f_te(Q)); g_cls is the row of v_cls, or that of the last frame.

    When the reconstructor shares this transformer, the word stack also gets cross-attention weights.
    """

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        options = config.generator
        self.word_stack = Stack(
            config, options.num_word_layers or options.num_layers, config.reconstructor.shares_generator
        )
        self.video_stack = Stack(config, options.num_layers, has_memory=True)
        self._summary_row = FRAME_SUMMARIES[config.encoder.frame_summary]

    def forward(
        self, frames: Tensor, frame_valid: Tensor, query: Tensor, word_valid: Tensor, dropout_key: Tensor | None
    ) -> Tensor:
        """Summarizes video and query.

        Args:
            frames: [B, S + 1, D], v_cls last; or [B, S, D] without it.
            frame_valid: [B, S + 1] or [B, S] bool; False for v_cls, which attends but is not attended to.
            query: [B, L + 1, D].
            word_valid: [B, L + 1] bool.
            dropout_key: [B] int32 of the samples; None for no dropout.
        Returns:
            [B, D] g_cls.
        """
        word_keys = Keys(valid=word_valid)
        words = self.word_stack(query, word_keys, Context(dropout_key=dropout_key))
        context = Context(memory=words, memory_keys=word_keys, dropout_key=dropout_key)
        row = self._summary_row(frame_valid)
        return self.video_stack(frames, Keys(valid=frame_valid), context, row).squeeze(1)
