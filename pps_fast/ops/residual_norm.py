"""End of every sub-layer of the transformers: LayerNorm(x + dropout(branch))."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.registration import device_reasons, dtype_reasons, fused_op, load_kernel, register, shape_reasons
from pps_fast.randomness import num_dropped_levels

kernel = load_kernel("residual_norm")

# one program holds all values of a row
_MAX_WIDTH = 2048


def _fake_fwd(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out, summed = x.new_empty(x.shape), x.new_empty(x.shape)
    return out, summed, *(x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))


def _fake_bwd(
    grad: Tensor,
    weight: Tensor,
    key: Tensor | None,
    place: list[int],
    first_row: Tensor | None,
    results: list[Tensor],
    branch_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_parameters = (grad.new_empty(weight.shape, dtype=torch.float32) for _ in range(2))
    grad_x = grad.new_empty(grad.shape, dtype=results[0].dtype)
    return grad_x, grad.new_empty(grad.shape, dtype=branch_dtype), *of_parameters


register(
    "residual_norm_fwd(Tensor x, Tensor branch, Tensor weight, Tensor bias, Tensor? key, int[] place,"
    " Tensor? first_row, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    kernel and kernel.residual_norm_fwd,
    _fake_fwd,
)
register(
    "residual_norm_bwd(Tensor grad, Tensor weight, Tensor? key, int[] place, Tensor? first_row, Tensor[] results,"
    " ScalarType branch_dtype) -> (Tensor, Tensor, Tensor, Tensor)",
    kernel and kernel.residual_norm_bwd,
    _fake_bwd,
)


class _FusedResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor,
        weight: Tensor,
        bias: Tensor,
        key: Tensor | None,
        place: list[int],
        first_row: Tensor | None,
    ) -> Tensor:
        out, *results = torch.ops.pps_fast.residual_norm_fwd(
            x, branch, weight, bias, key, place, first_row, equations.NORM_EPS
        )
        ctx.save_for_backward(weight, key, first_row, *results)
        ctx.place, ctx.dtypes = place, (branch.dtype, bias.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, key, first_row, *results = ctx.saved_tensors
        branch_dtype, bias_dtype = ctx.dtypes
        grad_x, grad_branch, grad_weight, grad_bias = torch.ops.pps_fast.residual_norm_bwd(
            grad, weight, key, ctx.place, first_row, results, branch_dtype
        )
        return grad_x, grad_branch, grad_weight.to(weight.dtype), grad_bias.to(bias_dtype), None, None, None


def _unsupported(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    key: Tensor | None = None,
    site: int = 0,
    rate: float = 0.0,
    first_row: Tensor | None = None,
) -> list[str]:
    """Says why the kernel cannot normalise these rows."""
    reasons = device_reasons(x=x, branch=branch, weight=weight, bias=bias, key=key, first_row=first_row)
    reasons += dtype_reasons(x=x, branch=branch, weight=weight, bias=bias) + shape_reasons(3, x=x)
    if x.shape != branch.shape or weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        reasons.append(
            f"x has shape {tuple(x.shape)}, branch {tuple(branch.shape)}, weight {tuple(weight.shape)}, bias "
            f"{tuple(bias.shape)}; the kernel needs [G, n, D] twice and [D] twice"
        )
    if x.shape[-1] > _MAX_WIDTH:
        reasons.append(f"x has rows of {x.shape[-1]} values; the kernel takes 1 to {_MAX_WIDTH}")
    if key is not None and (key.dtype != torch.int32 or key.shape != x.shape[:1]):
        reasons.append(f"key is {key.dtype} of shape {tuple(key.shape)}; the kernel needs [G] = {x.shape[:1]} int32")
    if first_row is not None and (first_row.is_floating_point() or first_row.shape != x.shape[:1]):
        reasons.append(
            f"first_row is {first_row.dtype} of shape {tuple(first_row.shape)}; the kernel needs [G] integers"
        )
    # as in the equation, which decides for pairs of neighbours
    if key is not None and first_row is not None and x.shape[-1] % 2:
        reasons.append(f"x has rows of {x.shape[-1]} values; with first_row the kernel needs an even number")
    return reasons


def _fused(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    key: Tensor | None = None,
    site: int = 0,
    rate: float = 0.0,
    first_row: Tensor | None = None,
) -> Tensor:
    num_dropped = num_dropped_levels(rate)
    key = key if num_dropped else None
    return _FusedResidualNorm.apply(x, branch, weight, bias, key, [site, num_dropped], first_row)


residual_norm = fused_op("residual_norm", _fused, _unsupported)
