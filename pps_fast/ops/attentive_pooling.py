"""From component masks to proposals: importance weights (Eq. 10), mixture (Eq. 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import Contract, at_least, floats, integers
from pps_fast.ops.registration import (
    first_order_only,
    fused_op,
    launcher_of,
    load_kernel,
    register,
    size_reasons,
    summed_dtype,
)

kernel = load_kernel("attentive_pooling")

# one program holds all pairs of a sample's components
MAX_COMPONENTS = 64
# one program holds all positions of a proposal
_MAX_POSITIONS = 512


def _fake(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _fake_mixture(masks: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    mixture, log = (_fake(masks, masks.shape[0], num_groups, masks.shape[2]) for _ in range(2))
    return mixture, log


def _fake_mixture_bwd(
    grad: Tensor | None, grad_log: Tensor | None, masks: Tensor, importance: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake(masks, *masks.shape), _fake(masks, *masks.shape), _fake(masks, *importance.shape)


def _fake_peak_mixture_fwd(
    masks: Tensor, group: Tensor, num_groups: int, peak_floor: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    peak, argmax = (_fake(masks, masks.shape[0], num_groups) for _ in range(2))
    return *_fake_mixture(masks, num_groups), peak, argmax


def _fake_peak_mixture_bwd(
    grad: Tensor | None,
    grad_log: Tensor | None,
    mixture: Tensor,
    peak: Tensor,
    argmax: Tensor,
    group: Tensor,
    peak_floor: float,
) -> Tensor:
    return _fake(mixture, mixture.shape[0], group.shape[0], mixture.shape[2])


register(
    launcher_of(kernel, "importance_fwd"),
    lambda score, group, num_groups: _fake(score, *score.shape),
)
register(
    launcher_of(kernel, "importance_bwd"),
    lambda grad, importance, group, num_groups: _fake(importance, *importance.shape),
)
register(
    launcher_of(kernel, "mixture_fwd"),
    lambda masks, importance, group, num_groups: _fake_mixture(masks, num_groups),
)
register(launcher_of(kernel, "mixture_bwd"), _fake_mixture_bwd)
register(launcher_of(kernel, "peak_mixture_fwd"), _fake_peak_mixture_fwd)
register(launcher_of(kernel, "peak_mixture_bwd"), _fake_peak_mixture_bwd)


class _FusedImportance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score: Tensor, group: Tensor, num_groups: int) -> Tensor:
        weights = torch.ops.pps_fast.importance_fwd(score, group, num_groups)
        ctx.save_for_backward(weights, group)
        ctx.num_groups, ctx.dtype = num_groups, score.dtype
        return weights

    @staticmethod
    @first_order_only("importance")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, group = ctx.saved_tensors
        grads = torch.ops.pps_fast.importance_bwd(grad, weights, group, ctx.num_groups)
        return grads.to(ctx.dtype), None, None


class _FusedMixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, masks: Tensor, log_masks: Tensor, weights: Tensor, group: Tensor, num_groups: int
    ) -> tuple[Tensor, Tensor]:
        # log_masks is redundant in the forward pass; it is an input only so that it receives a gradient
        mixture, log = torch.ops.pps_fast.mixture_fwd(masks, weights, group, num_groups)
        ctx.save_for_backward(masks, weights, group, log)
        ctx.dtypes = (masks.dtype, log_masks.dtype, weights.dtype)
        ctx.set_materialize_grads(False)
        return mixture, log

    @staticmethod
    @first_order_only("mixture")
    def backward(ctx: Any, grad: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
        grads = torch.ops.pps_fast.mixture_bwd(grad, grad_log, *ctx.saved_tensors)
        return *(x.to(dtype) for x, dtype in zip(grads, ctx.dtypes, strict=True)), None, None


class _FusedPeakMixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
        floor = equations.PEAK_FLOOR
        mixture, log, peak, argmax = torch.ops.pps_fast.peak_mixture_fwd(masks, group, num_groups, floor)
        ctx.save_for_backward(mixture, peak, argmax, group)
        ctx.dtype = masks.dtype
        ctx.set_materialize_grads(False)
        return mixture, log

    @staticmethod
    @first_order_only("peak_mixture")
    def backward(ctx: Any, grad: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
        grads = torch.ops.pps_fast.peak_mixture_bwd(grad, grad_log, *ctx.saved_tensors, equations.PEAK_FLOOR)
        return grads.to(ctx.dtype), None, None


def group_limits(num_groups: int, limit: int | None = None) -> list[str]:
    """Says that there are too few or too many groups for a kernel."""
    if num_groups < 1:
        return ["num_groups = 0; the kernel needs at least 1"]
    return [] if limit is None else size_reasons("group", "proposals", num_groups, limit)


def _importance_limits(score: Tensor, num_groups: int, **_: Any) -> list[str]:
    """Says which sizes the kernel of the importance weights does not take."""
    return group_limits(num_groups) + size_reasons("score", "components", score.shape[1], MAX_COMPONENTS)


def _mixture_limits(masks: Tensor, num_groups: int, **_: Any) -> list[str]:
    """Says which sizes the kernels of the mixtures do not take."""
    reasons = group_limits(num_groups) + size_reasons("masks", "components", masks.shape[1], MAX_COMPONENTS)
    return reasons + size_reasons("masks", "positions", masks.shape[2], _MAX_POSITIONS)


def _fused_importance(score: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _FusedImportance.apply(score, group, num_groups)


def _fused_mixture(
    masks: Tensor, log_masks: Tensor, importance: Tensor, group: Tensor, num_groups: int
) -> tuple[Tensor, Tensor]:
    mixed, log = _FusedMixture.apply(masks, log_masks, importance, group, num_groups)
    return mixed.to(summed_dtype(masks, importance)), log.to(summed_dtype(log_masks, importance))


def _fused_peak_mixture(masks: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    mixed, log = _FusedPeakMixture.apply(masks, group, num_groups)
    dtype = summed_dtype(masks)
    return mixed.to(dtype), log.to(dtype)


_GROUPS: Contract = {"group": integers("E"), "num_groups": at_least(0)}

importance = fused_op(equations.importance, _fused_importance, {"score": floats("B E"), **_GROUPS}, _importance_limits)
mixture = fused_op(
    equations.mixture,
    _fused_mixture,
    {"masks": floats("B E T"), "log_masks": floats("B E T"), "importance": floats("B E"), **_GROUPS},
    _mixture_limits,
)
peak_mixture = fused_op(
    equations.peak_mixture, _fused_peak_mixture, {"masks": floats("B E T"), **_GROUPS}, _mixture_limits
)
