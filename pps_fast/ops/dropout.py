"""Dropout of the input of a matrix product in one launch, in the dtype that the product reads.

No equation of the paper: it decides and computes as `randomness.dropout` does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import randomness
from pps_fast.ops.registration import launcher_of, load_kernel, register, runs_kernels
from pps_fast.randomness import mix, num_dropped_levels

kernel = load_kernel("dropout")


def _fake(x: Tensor, dropout_key: Tensor, settings: list[int], first_row: int, dtype: torch.dtype) -> Tensor:
    return x.new_empty(x.shape, dtype=dtype)


register(launcher_of(kernel, "dropout"), _fake)


class _FusedDropout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropout_key: Tensor, settings: list[int], first_row: int, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(dropout_key)
        ctx.others = settings, first_row, x.dtype
        return torch.ops.pps_fast.dropout(x, dropout_key, settings, first_row, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (dropout_key,) = ctx.saved_tensors
        return _FusedDropout.apply(grad, dropout_key, *ctx.others), None, None, None, None


def dropout(
    x: Tensor, dropout_key: Tensor, site: int, rate: float, first_row: int, dtype: torch.dtype, backend: str
) -> Tensor:
    """Drops values of sequences at a rate and scales the others.

    Args:
        x: [G, n, D].
        dropout_key: [G] int32 of the sequences.
        site: number of the dropout site.
        rate: 0 to below 1, rounded to 1 / 65,536.
        first_row: position of the first of the n rows in its sequence.
        dtype: of the result.
        backend: which implementation computes it.
    Returns:
        [G, n, D].
    """
    num_dropped = num_dropped_levels(rate)
    if num_dropped and runs_kernels(x, backend):
        return _FusedDropout.apply(x, dropout_key, [site, num_dropped], first_row, dtype)
    return randomness.dropout(x, mix(dropout_key, site), rate, first_row, dtype)
