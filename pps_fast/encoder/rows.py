"""Rows of sequences: numbered, repeated once per mask, or one taken of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pps_fast.ops.registration import runs_kernels


class Numbers(nn.Module):
    """The numbers 0, 1, 2, ...: a buffer, so that no step writes them anew.

    Args:
        count: how many are kept; more are made when they are asked for.
    """

    kept: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("kept", torch.arange(count), persistent=False)

    def forward(self, count: int) -> Tensor:
        """Returns 0, ..., count - 1, [n] int64 for n = count."""
        return self.kept[:count] if count <= len(self.kept) else torch.arange(count, device=self.kept.device)


def repeat(x: Tensor, num_masks: int) -> Tensor:
    """Repeats each sample once per mask: [B, ...] -> [B * N, ...]."""
    return x.unsqueeze(1).expand(-1, num_masks, *x.shape[1:]).flatten(0, 1)


def take_row(x: Tensor, row: Tensor) -> Tensor:
    """One row of each sequence: [G, n, D] at row [G] -> [G, 1, D]."""
    return x.gather(1, row[:, None, None].expand(-1, 1, x.shape[-1]))


class _KeptRows(torch.autograd.Function):
    """Adds the gradient of some rows to that of all in one call, without zeros in between."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(index)
        return x.view_as(x), x.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_kept: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.index_add(1, index, grad_kept), None


def keep_rows(x: Tensor, index: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Returns all rows of each sequence and, apart, those of an index.

    Args:
        x: [G, n, D].
        index: [T] int64, each row at most once.
        backend: see `config.PPSConfig`; results and gradients are the same.
    Returns:
        [G, n, D], to be read in place of x, and [G, T, D].
    """
    if runs_kernels(x, backend):
        all_rows, kept = _KeptRows.apply(x, index)
        return all_rows, kept
    return x, x.index_select(1, index)
