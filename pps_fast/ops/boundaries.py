"""Start and end of each proposal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.attentive_pooling import MAX_COMPONENTS, group_limits
from pps_fast.ops.contract import at_least, floats, integers
from pps_fast.ops.registration import (
    first_order_only,
    fused_op,
    launcher_of,
    load_kernel,
    register,
    size_reasons,
    summed_dtype,
)

kernel = load_kernel("boundaries")

# one program holds all proposals of a sample
_MAX_PROPOSALS = 64


def _fake_fwd(
    center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float
) -> tuple[Tensor, Tensor]:
    start, end = (center.new_empty((center.shape[0], num_groups), dtype=torch.float32) for _ in range(2))
    return start, end


def _fake_bwd(grad_start: Tensor, grad_end: Tensor, center: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad_center, grad_width, grad_importance = (center.new_empty(center.shape, dtype=torch.float32) for _ in range(3))
    return grad_center, grad_width, grad_importance


register(launcher_of(kernel, "boundaries_fwd"), _fake_fwd)
register(launcher_of(kernel, "boundaries_bwd"), _fake_bwd)


class _FusedBoundaries(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(center, width, importance, group)
        ctx.shrink = shrink
        return torch.ops.pps_fast.boundaries_fwd(center, width, importance, group, num_groups, shrink)

    @staticmethod
    @first_order_only("boundaries")
    def backward(ctx: Any, grad_start: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
        grads = torch.ops.pps_fast.boundaries_bwd(grad_start, grad_end, *ctx.saved_tensors, ctx.shrink)
        return *(x.to(like.dtype) for x, like in zip(grads, ctx.saved_tensors[:3], strict=True)), None, None, None


def _limits(center: Tensor, num_groups: int, **_: Any) -> list[str]:
    """Says which sizes the kernel does not take."""
    reasons = size_reasons("center", "components", center.shape[1], MAX_COMPONENTS)
    return reasons + group_limits(num_groups, _MAX_PROPOSALS)


def _fused(
    center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float = 0.0
) -> tuple[Tensor, Tensor]:
    start, end = _FusedBoundaries.apply(center, width, importance, group, num_groups, float(shrink))
    dtype = summed_dtype(center, width, importance)
    return start.to(dtype), end.to(dtype)


boundaries = fused_op(
    equations.boundaries,
    _fused,
    {
        **dict.fromkeys(("center", "width", "importance"), floats("B E")),
        "group": integers("E"),
        "num_groups": at_least(0),
    },
    _limits,
)
