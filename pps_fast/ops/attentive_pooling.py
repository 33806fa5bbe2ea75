"""From component masks to proposals: importance weights (Eq. 10), mixture (Eq. 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.registration import (
    component_reasons,
    dtype_reasons,
    fused_op,
    load_kernel,
    register,
    size_reasons,
)

kernel = load_kernel("attentive_pooling")

# one program holds all positions of a proposal
_MAX_POSITIONS = 512


def _fake(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _fake_mixture(masks: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    mixture, log = (_fake(masks, masks.shape[0], num_groups, masks.shape[2]) for _ in range(2))
    return mixture, log


def _fake_mixture_bwd(
    grad: Tensor, grad_log: Tensor, masks: Tensor, importance: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake(masks, *masks.shape), _fake(masks, *masks.shape), _fake(masks, *importance.shape)


def _fake_peak_mixture_fwd(
    masks: Tensor, group: Tensor, num_groups: int, peak_floor: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    peak, place = (_fake(masks, masks.shape[0], num_groups) for _ in range(2))
    return *_fake_mixture(masks, num_groups), peak, place


def _fake_peak_mixture_bwd(
    grad: Tensor, grad_log: Tensor, mixture: Tensor, peak: Tensor, place: Tensor, group: Tensor, peak_floor: float
) -> Tensor:
    return _fake(mixture, mixture.shape[0], group.shape[0], mixture.shape[2])


register(
    "importance_fwd(Tensor score, Tensor group, int num_groups) -> Tensor",
    kernel and kernel.importance_fwd,
    lambda score, group, num_groups: _fake(score, *score.shape),
)
register(
    "importance_bwd(Tensor grad, Tensor importance, Tensor group, int num_groups) -> Tensor",
    kernel and kernel.importance_bwd,
    lambda grad, importance, group, num_groups: _fake(importance, *importance.shape),
)
register(
    "mixture_fwd(Tensor masks, Tensor importance, Tensor group, int num_groups) -> (Tensor, Tensor)",
    kernel and kernel.mixture_fwd,
    lambda masks, importance, group, num_groups: _fake_mixture(masks, num_groups),
)
register(
    "mixture_bwd(Tensor grad, Tensor grad_log, Tensor masks, Tensor importance, Tensor group, Tensor log)"
    " -> (Tensor, Tensor, Tensor)",
    kernel and kernel.mixture_bwd,
    _fake_mixture_bwd,
)
register(
    "peak_mixture_fwd(Tensor masks, Tensor group, int num_groups, float peak_floor)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    kernel and kernel.peak_mixture_fwd,
    _fake_peak_mixture_fwd,
)
register(
    "peak_mixture_bwd(Tensor grad, Tensor grad_log, Tensor mixture, Tensor peak, Tensor place, Tensor group,"
    " float peak_floor) -> Tensor",
    kernel and kernel.peak_mixture_bwd,
    _fake_peak_mixture_bwd,
)


class _FusedImportance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score: Tensor, group: Tensor, num_groups: int) -> Tensor:
        weights = torch.ops.pps_fast.importance_fwd(score, group, num_groups)
        ctx.save_for_backward(weights, group)
        ctx.num_groups, ctx.dtype = num_groups, score.dtype
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, group = ctx.saved_tensors
        found = torch.ops.pps_fast.importance_bwd(grad, weights, group, ctx.num_groups)
        return found.to(ctx.dtype), None, None


class _FusedMixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, masks: Tensor, log_masks: Tensor, weights: Tensor, group: Tensor, num_groups: int
    ) -> tuple[Tensor, Tensor]:
        # log_masks has nothing that masks has not; its place is in the backward pass
        mixture, log = torch.ops.pps_fast.mixture_fwd(masks, weights, group, num_groups)
        ctx.save_for_backward(masks, weights, group, log)
        ctx.dtypes = (masks.dtype, log_masks.dtype, weights.dtype)
        return mixture, log

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_log: Tensor) -> tuple[Tensor | None, ...]:
        found = torch.ops.pps_fast.mixture_bwd(grad, grad_log, *ctx.saved_tensors)
        return *(x.to(dtype) for x, dtype in zip(found, ctx.dtypes, strict=True)), None, None


class _FusedPeakMixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
        floor = equations.PEAK_FLOOR
        mixture, log, peak, place = torch.ops.pps_fast.peak_mixture_fwd(masks, group, num_groups, floor)
        ctx.save_for_backward(mixture, peak, place, group)
        ctx.dtype = masks.dtype
        return mixture, log

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_log: Tensor) -> tuple[Tensor | None, ...]:
        found = torch.ops.pps_fast.peak_mixture_bwd(grad, grad_log, *ctx.saved_tensors, equations.PEAK_FLOOR)
        return found.to(ctx.dtype), None, None


def _importance_unsupported(score: Tensor, group: Tensor, num_groups: int) -> list[str]:
    """Says why the kernel cannot compute the importance weights."""
    return component_reasons(group, num_groups, 2, score=score)


def _peak_mixture_unsupported(masks: Tensor, group: Tensor, num_groups: int) -> list[str]:
    """Says why the kernel cannot mix these masks."""
    reasons = component_reasons(group, num_groups, 3, masks=masks)
    return reasons + size_reasons("masks", "positions", masks.shape[-1], _MAX_POSITIONS)


def _mixture_unsupported(
    masks: Tensor, log_masks: Tensor, importance: Tensor, group: Tensor, num_groups: int
) -> list[str]:
    """Says why the kernel cannot mix these masks with these weights."""
    reasons = component_reasons(group, num_groups, 3, masks=masks, log_masks=log_masks)
    reasons += size_reasons("masks", "positions", masks.shape[-1], _MAX_POSITIONS)
    if log_masks.shape[2:] != masks.shape[2:]:
        reasons.append(
            f"log_masks has shape {tuple(log_masks.shape)}, masks {tuple(masks.shape)}; the kernel needs a log for "
            "each mask"
        )
    if importance.shape != masks.shape[:2]:
        reasons.append(
            f"importance has shape {tuple(importance.shape)}, masks {tuple(masks.shape)}; the kernel needs a weight "
            "for each mask"
        )
    return reasons + dtype_reasons(importance=importance)


def _fused_importance(score: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _FusedImportance.apply(score, group, num_groups)


def _fused_mixture(
    masks: Tensor, log_masks: Tensor, importance: Tensor, group: Tensor, num_groups: int
) -> tuple[Tensor, Tensor]:
    mixed, log = _FusedMixture.apply(masks, log_masks, importance, group, num_groups)
    dtype = torch.promote_types(masks.dtype, importance.dtype)
    return mixed.to(dtype), log.to(torch.promote_types(log_masks.dtype, importance.dtype))


def _fused_peak_mixture(masks: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    mixed, log = _FusedPeakMixture.apply(masks, group, num_groups)
    return mixed.to(masks.dtype), log.to(masks.dtype)


importance = fused_op("importance", _fused_importance, _importance_unsupported)
mixture = fused_op("mixture", _fused_mixture, _mixture_unsupported)
peak_mixture = fused_op("peak_mixture", _fused_peak_mixture, _peak_mixture_unsupported)
