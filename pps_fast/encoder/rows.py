"""Rows of sequences: repeated once per mask, or one taken of each."""

from __future__ import annotations

from torch import Tensor


def repeat(x: Tensor, num_masks: int) -> Tensor:
    """Repeats each sample once per mask: [B, ...] -> [B * N, ...]."""
    return x.unsqueeze(1).expand(-1, num_masks, *x.shape[1:]).flatten(0, 1)


def take_row(x: Tensor, row: Tensor) -> Tensor:
    """One row of each sequence: [G, n, D] at row [G] -> [G, 1, D]."""
    return x.gather(1, row[:, None, None].expand(-1, 1, x.shape[-1]))
