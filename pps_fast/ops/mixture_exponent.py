"""Logs of Gaussian mixture proposals from logs of masks (log P of Eq. 4), which the pushing loss reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.attentive_pooling import MAX_COMPONENTS, group_limits
from pps_fast.ops.contract import at_least, floats, integers
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register, size_reasons

kernel = load_kernel("mixture_exponent")

# one program holds all positions of a proposal
_MAX_POSITIONS = 512


def _fake_fwd(exponents: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return exponents.new_empty((exponents.shape[0], num_groups, exponents.shape[2]), dtype=torch.float32)


def _fake_bwd(grad: Tensor, exponents: Tensor, importance: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    grad_exponents = exponents.new_empty(exponents.shape, dtype=torch.float32)
    return grad_exponents, exponents.new_empty(importance.shape, dtype=torch.float32)


register(launcher_of(kernel, "mixture_exponent_fwd"), _fake_fwd)
register(launcher_of(kernel, "mixture_exponent_bwd"), _fake_bwd)


class _FusedMixtureExponent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exponents: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
        mixture = torch.ops.pps_fast.mixture_exponent_fwd(exponents, importance, group, num_groups)
        ctx.save_for_backward(exponents, importance, group, mixture)
        return mixture

    @staticmethod
    @first_order_only("mixture_exponent")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        exponents, importance, _, _ = ctx.saved_tensors
        grads = torch.ops.pps_fast.mixture_exponent_bwd(grad, *ctx.saved_tensors)
        return grads[0].to(exponents.dtype), grads[1].to(importance.dtype), None, None


def _limits(exponents: Tensor, num_groups: int, **_: Any) -> list[str]:
    """Says which sizes the kernels do not take."""
    reasons = group_limits(num_groups) + size_reasons("exponents", "components", exponents.shape[1], MAX_COMPONENTS)
    return reasons + size_reasons("exponents", "positions", exponents.shape[2], _MAX_POSITIONS)


def _fused(exponents: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _FusedMixtureExponent.apply(exponents, importance, group, num_groups)


mixture_exponent = fused_op(
    equations.mixture_exponent,
    _fused,
    {
        "exponents": floats("B E T"),
        "importance": floats("B E"),
        "group": integers("E"),
        "num_groups": at_least(0),
    },
    _limits,
)
