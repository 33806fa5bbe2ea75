"""A linear layer with a backward pass of its own, over plain products: y = x W^T + b.

It computes what `torch.nn.functional.linear` does, with fewer calls: the product reads weights that were rounded once
per update (`ops/weights.py`), and the gradients of weight and bias are added where the update reads them, never rounded
to the dtype of the product.

Letters: R rows of all sequences, C columns of the result.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.masked_attention import multiplied_as
from pps_fast.ops.registration import first_order_only, runs_kernels
from pps_fast.ops.weights import padded, rounded

_WEIGHT, _BIAS = range(2)


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        rows = x.to(multiplied_as(x))
        ctx.parameters, ctx.dtype = (weight, bias), x.dtype
        out = F.linear(rows, padded(weight, rows.dtype), padded(bias, rows.dtype))[..., : len(weight)]
        # the result is saved for `first_order_only` alone
        ctx.save_for_backward(rows, out)
        return out

    @staticmethod
    @first_order_only("a linear layer")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, _ = ctx.saved_tensors
        sums, flat = GradientSums(ctx), grad.reshape(-1, grad.shape[-1])
        # rows may be farther apart than they are long
        flat = flat if flat.stride(1) == 1 else flat.contiguous()
        sums.add_weight(_WEIGHT, flat, rows.reshape(-1, rows.shape[-1]))
        sums.add_bias(_BIAS, flat)
        grad_x = None
        if ctx.needs_input_grad[2]:
            grad_x = (flat @ rounded(ctx.parameters[_WEIGHT], rows.dtype)).view(rows.shape).to(ctx.dtype)
        return *sums.results(), grad_x


def linear(x: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
    """x W^T + b, in the dtype that products are in.

    Args:
        x: [..., D].
        weight: [C, D] parameter.
        bias: [C] parameter.
        backend: which implementation computes it.
    Returns:
        [..., C]; where weights are rounded, its rows begin at multiples of 128 bytes.
    """
    return _FusedLinear.apply(weight, bias, x) if runs_kernels(x, backend) else F.linear(x, weight, bias)
