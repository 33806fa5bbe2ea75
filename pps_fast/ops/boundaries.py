"""Start and end of each proposal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.registration import component_reasons, fused_op, load_kernel, register, size_reasons

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


register(
    "boundaries_fwd(Tensor center, Tensor width, Tensor importance, Tensor group, int num_groups, float shrink)"
    " -> (Tensor, Tensor)",
    kernel and kernel.boundaries_fwd,
    _fake_fwd,
)
register(
    "boundaries_bwd(Tensor grad_start, Tensor grad_end, Tensor center, Tensor width, Tensor importance, Tensor group,"
    " float shrink) -> (Tensor, Tensor, Tensor)",
    kernel and kernel.boundaries_bwd,
    _fake_bwd,
)


class _FusedBoundaries(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(center, width, importance, group)
        ctx.shrink = shrink
        return torch.ops.pps_fast.boundaries_fwd(center, width, importance, group, num_groups, shrink)

    @staticmethod
    def backward(ctx: Any, grad_start: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
        found = torch.ops.pps_fast.boundaries_bwd(grad_start, grad_end, *ctx.saved_tensors, ctx.shrink)
        return *(x.to(like.dtype) for x, like in zip(found, ctx.saved_tensors[:3], strict=True)), None, None, None


def _unsupported(
    center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float = 0.0
) -> list[str]:
    """Says why the kernel cannot find these boundaries."""
    reasons = component_reasons(group, num_groups, 2, center=center, width=width, importance=importance)
    return reasons + (size_reasons("group", "proposals", num_groups, _MAX_PROPOSALS) if num_groups > 0 else [])


def _fused(
    center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float = 0.0
) -> tuple[Tensor, Tensor]:
    start, end = _FusedBoundaries.apply(center, width, importance, group, num_groups, float(shrink))
    dtype = torch.promote_types(torch.promote_types(center.dtype, width.dtype), importance.dtype)
    return start.to(dtype), end.to(dtype)


boundaries = fused_op("boundaries", _fused, _unsupported)
