"""Sinusoidal positions of words. Frames have none: their order shows only through the causal attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pps_fast.ops.word_positions import word_positions

# rows of the table that a model keeps; sentences of the data sets have at most 20 words
_NUM_KEPT = 64


def position_table(
    num_positions: int, width: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """pe(p) = [sin(p w), cos(p w)], w_i = 10000^(-i / (D/2 - 1)); pe(0) = 0.

    Args:
        num_positions: n.
        width: D, even.
    Returns:
        [n, D].
    """
    half = width // 2
    index = torch.arange(half, device=device, dtype=dtype)
    frequency = torch.exp(index * (-math.log(10000) / max(half - 1, 1)))
    position = torch.arange(num_positions, device=device, dtype=dtype)
    angle = position.unsqueeze(1) * frequency  # [n, D/2]
    table = torch.cat((angle.sin(), angle.cos()), -1)
    return table * (position > 0).unsqueeze(1)


class Positions(nn.Module):
    """Adds pe(p) to position p of [B, n, D]; the table is fp32 at least.

    Args:
        width: D.
        backend: see `config.PPSConfig`.
    """

    table: Tensor

    def __init__(self, width: int, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.register_buffer("table", position_table(_NUM_KEPT, width), persistent=False)

    def forward(self, x: Tensor, word_cls: Tensor | None = None, num_words: Tensor | None = None) -> Tensor:
        """Adds positions.

        Args:
            x: [B, n, D].
            word_cls: [D] vector that first takes the place of slot num_words[b] + 1; None for none.
            num_words: [B] int64, with word_cls.
        Returns:
            [B, n, D] in x's dtype.
        """
        return word_positions(x, word_cls, num_words, self._rows(x), self.backend)

    def _rows(self, x: Tensor) -> Tensor:
        """pe of x's positions, [n, D]."""
        num_positions, width = x.shape[1:]
        if x.dtype == torch.float64 or num_positions > _NUM_KEPT:
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            return position_table(num_positions, width, dtype, x.device)
        return self.table[:num_positions]
