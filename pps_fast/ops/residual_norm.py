"""End of every sub-layer of the transformers: LayerNorm(x + dropout(branch))."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import exactly, floats, integers
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register
from pps_fast.randomness import add_dropout, mix, num_dropped_levels

kernel = load_kernel("residual_norm")

# one program holds all values of a row
_MAX_WIDTH = 2048


def _fake_fwd(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (others[-1], *x.shape[1:])
    out, summed = x.new_empty(shape), x.new_empty(shape)
    mean, inverse_std = (x.new_empty(shape[:2], dtype=torch.float32) for _ in range(2))
    return out, summed, mean, inverse_std


def _fake_bwd(
    grad: Tensor,
    weight: Tensor,
    dropout_key: Tensor | None,
    dropout: list[int],
    places: Tensor | None,
    results: list[Tensor],
    branch_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_x = grad.new_empty(grad.shape, dtype=results[0].dtype)
    grad_weight, grad_bias = (grad.new_empty(weight.shape, dtype=torch.float32) for _ in range(2))
    return grad_x, grad.new_empty(grad.shape, dtype=branch_dtype), grad_weight, grad_bias


def _fake_bwd_into(sums: list[Tensor], grad: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    results, branch_dtype = others[-2:]
    return grad.new_empty(grad.shape, dtype=results[0].dtype), grad.new_empty(grad.shape, dtype=branch_dtype)


register(launcher_of(kernel, "residual_norm_fwd"), _fake_fwd)
register(launcher_of(kernel, "residual_norm_bwd"), _fake_bwd)
register(launcher_of(kernel, "residual_norm_bwd_into"), _fake_bwd_into, mutates=("sums",))


class _FusedResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor,
        weight: Tensor,
        bias: Tensor,
        dropout_key: Tensor | None,
        dropout: list[int],
        first_row: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        out, summed, mean, inverse_std = torch.ops.pps_fast.residual_norm_fwd(
            x, branch, weight, bias, dropout_key, dropout, first_row, equations.NORM_EPS, x.shape[0]
        )
        ctx.save_for_backward(weight, dropout_key, first_row, summed, mean, inverse_std)
        ctx.dropout, ctx.dtypes = dropout, (branch.dtype, bias.dtype)
        # nobody uses the mean, so no zeros shall be made for its gradient
        ctx.set_materialize_grads(False)
        # the smallest result, for `first_order_only`
        return out, mean

    @staticmethod
    @first_order_only("residual_norm")
    def backward(ctx: Any, grad: Tensor, grad_mean: None) -> tuple[Tensor | None, ...]:
        weight, dropout_key, first_row, *results = ctx.saved_tensors
        branch_dtype, bias_dtype = ctx.dtypes
        grad_x, grad_branch, grad_weight, grad_bias = torch.ops.pps_fast.residual_norm_bwd(
            grad, weight, dropout_key, ctx.dropout, first_row, results, branch_dtype
        )
        return grad_x, grad_branch, grad_weight.to(weight.dtype), grad_bias.to(bias_dtype), None, None, None


def _even_rows(arguments: Mapping[str, Any]) -> str | None:
    """Says that dropout, which decides for pairs of neighbors, needs rows that begin with a pair."""
    is_dropping = arguments.get("dropout_key") is not None and num_dropped_levels(arguments.get("rate", 0.0)) > 0
    width = arguments["x"].shape[2]
    if not is_dropping or arguments.get("first_row") is None or width % 2 == 0:
        return None
    return f"x has rows of {width} values; with first_row expected an even number"


def _limits(x: Tensor, **_: Any) -> list[str]:
    """Says which sizes the kernel does not take."""
    if x.shape[2] <= _MAX_WIDTH:
        return []
    return [f"x has rows of {x.shape[2]} values; the kernel takes 1 to {_MAX_WIDTH}"]


def _fused(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout_key: Tensor | None = None,
    site: int = 0,
    rate: float = 0.0,
    first_row: Tensor | None = None,
) -> Tensor:
    num_dropped = num_dropped_levels(rate)
    dropout_key = dropout_key if num_dropped else None
    out, _ = _FusedResidualNorm.apply(x, branch, weight, bias, dropout_key, [site, num_dropped], first_row)
    return out


def _half(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout_key: Tensor | None = None,
    site: int = 0,
    rate: float = 0.0,
    first_row: Tensor | None = None,
) -> Tensor | None:
    """torch's LayerNorm of bf16 rows, with fp32 statistics, on a CPU: without gradients, which it sums in bf16."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.bfloat16:
        return None
    site_key = None if dropout_key is None else mix(dropout_key, site)
    summed = add_dropout(x, branch, site_key, rate, 0 if first_row is None else first_row)
    return F.layer_norm(summed, weight.shape, weight, bias, equations.NORM_EPS)


residual_norm = fused_op(
    equations.residual_norm,
    _fused,
    {
        "x": floats("G n D"),
        "branch": floats("G n D"),
        "weight": floats("D"),
        "bias": floats("D"),
        "dropout_key": exactly(torch.int32, "G"),
        "first_row": integers("G"),
    },
    _limits,
    rule=_even_rows,
    shortcut=_half,
)
