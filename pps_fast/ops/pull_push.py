"""Pulling and pushing losses (Eqs. 5-7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.registration import (
    device_reasons,
    dtype_reasons,
    fused_op,
    group_reasons,
    load_kernel,
    register,
    shape_reasons,
    size_reasons,
)

kernel = load_kernel("pull_push")

# one program holds all pairs of a sample's rows
_MAX_ROWS = 64
_MAX_POSITIONS = 512


def _scaled(grad: Tensor, unit_grad: Tensor) -> Tensor:
    """Gradient of the batch's mean, from those of the samples' losses and the mean's."""
    return unit_grad * (grad / unit_grad.shape[0])


def _fake_loss(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], dtype=torch.float32), x.new_empty(x.shape, dtype=torch.float32)


register(
    "push_fwd(Tensor masks, Tensor group, float target, bool normalize, float row_sum_floor) -> (Tensor, Tensor)",
    kernel and kernel.push_fwd,
    _fake_loss,
)
register(
    "pull_fwd(Tensor center, Tensor group, int num_groups, int strategy) -> (Tensor, Tensor)",
    kernel and kernel.pull_fwd,
    _fake_loss,
)
register("pull_push_bwd(Tensor grad, Tensor unit_grad) -> Tensor", _scaled, lambda grad, unit: torch.empty_like(unit))


class _FusedPush(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, group: Tensor, target: float, normalize: bool) -> Tensor:
        loss, unit_grad = torch.ops.pps_fast.push_fwd(masks, group, target, normalize, equations.ROW_SUM_FLOOR)
        ctx.save_for_backward(unit_grad)
        ctx.dtype = masks.dtype
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (unit_grad,) = ctx.saved_tensors
        return torch.ops.pps_fast.pull_push_bwd(grad, unit_grad).to(ctx.dtype), None, None, None


class _FusedPull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, center: Tensor, group: Tensor, num_groups: int, strategy: int) -> Tensor:
        loss, unit_grad = torch.ops.pps_fast.pull_fwd(center, group, num_groups, strategy)
        ctx.save_for_backward(unit_grad)
        ctx.dtype = center.dtype
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (unit_grad,) = ctx.saved_tensors
        return torch.ops.pps_fast.pull_push_bwd(grad, unit_grad).to(ctx.dtype), None, None, None


def _unsupported(num_dims: int, group: Tensor, **named: Tensor) -> list[str]:
    """Says what is common to the losses: device, dtype, shape and groups of x [B, n, ...]."""
    ((name, x),) = named.items()
    reasons = device_reasons(**named, group=group) + dtype_reasons(**named) + shape_reasons(num_dims, **named)
    if x.dim() == num_dims:
        reasons += size_reasons(name, "rows", x.shape[1], _MAX_ROWS) + group_reasons(group, name, x)
    return reasons


def _push_unsupported(masks: Tensor, group: Tensor, target: float, normalize: bool = True) -> list[str]:
    """Says why the kernel cannot compute the pushing loss."""
    return _unsupported(3, group, masks=masks) + size_reasons("masks", "positions", masks.shape[-1], _MAX_POSITIONS)


def _pull_unsupported(center: Tensor, group: Tensor, num_groups: int) -> list[str]:
    """Says why the kernel cannot compute the pulling loss."""
    return _unsupported(2, group, center=center)


def _fused_push(masks: Tensor, group: Tensor, target: float, normalize: bool = True) -> Tensor:
    return _FusedPush.apply(masks, group, float(target), bool(normalize))


def _fused_pull(strategy: str) -> Callable[..., Tensor]:
    """Returns the fused implementation of one strategy, with the equation's signature."""

    def fused(center: Tensor, group: Tensor, num_groups: int) -> Tensor:
        return _FusedPull.apply(center, group, num_groups, kernel.STRATEGIES.index(strategy))

    return fused


pull_distant = fused_op("pull_distant", _fused_pull("distant"), _pull_unsupported)
pull_middle = fused_op("pull_middle", _fused_pull("middle"), _pull_unsupported)
pull_all = fused_op("pull_all", _fused_pull("all"), _pull_unsupported)
push = fused_op("push", _fused_push, _push_unsupported)
