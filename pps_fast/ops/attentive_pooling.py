"""From component masks to proposals: importance weights (Eq. 10), mixture (Eq. 4), boundaries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.backend import Op

try:
    from pps_fast.kernels import attentive_pooling as kernel
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    kernel = None

_FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# one program holds all pairs of a sample's components, or all positions of a proposal
_MAX_COMPONENTS = 64
_MAX_POSITIONS = 512

_library = torch.library.Library("pps_fast", "FRAGMENT")
_OPS = {
    "importance_fwd": "(Tensor score, Tensor group, int num_groups) -> Tensor",
    "importance_bwd": "(Tensor grad, Tensor importance, Tensor group, int num_groups) -> Tensor",
    "mixture_fwd": "(Tensor masks, Tensor importance, Tensor group, int num_groups) -> Tensor",
    "mixture_bwd": "(Tensor grad, Tensor masks, Tensor importance, Tensor group, int num_groups) -> (Tensor, Tensor)",
    "peak_mixture_fwd": "(Tensor masks, Tensor group, int num_groups, float peak_floor) -> (Tensor, Tensor, Tensor)",
    "peak_mixture_bwd": (
        "(Tensor grad, Tensor mixture, Tensor peak, Tensor place, Tensor group, float peak_floor) -> Tensor"
    ),
}
for _name, _signature in _OPS.items():
    _library.define(_name + _signature)
    if kernel is not None:
        for _device in ("CPU", "CUDA"):
            _library.impl(_name, getattr(kernel, _name), _device)


def _fake(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


@torch.library.register_fake("pps_fast::importance_fwd")
def _fake_importance_fwd(score: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _fake(score, *score.shape)


@torch.library.register_fake("pps_fast::importance_bwd")
def _fake_importance_bwd(grad: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _fake(importance, *importance.shape)


@torch.library.register_fake("pps_fast::mixture_fwd")
def _fake_mixture_fwd(masks: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _fake(masks, masks.shape[0], num_groups, masks.shape[2])


@torch.library.register_fake("pps_fast::mixture_bwd")
def _fake_mixture_bwd(
    grad: Tensor, masks: Tensor, importance: Tensor, group: Tensor, num_groups: int
) -> tuple[Tensor, Tensor]:
    return _fake(masks, *masks.shape), _fake(masks, *importance.shape)


@torch.library.register_fake("pps_fast::peak_mixture_fwd")
def _fake_peak_mixture_fwd(
    masks: Tensor, group: Tensor, num_groups: int, peak_floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    peak, place = (_fake(masks, masks.shape[0], num_groups) for _ in range(2))
    return _fake(masks, masks.shape[0], num_groups, masks.shape[2]), peak, place


@torch.library.register_fake("pps_fast::peak_mixture_bwd")
def _fake_peak_mixture_bwd(
    grad: Tensor, mixture: Tensor, peak: Tensor, place: Tensor, group: Tensor, peak_floor: float
) -> Tensor:
    return _fake(mixture, mixture.shape[0], group.shape[0], mixture.shape[2])


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
    def forward(ctx: Any, masks: Tensor, weights: Tensor, group: Tensor, num_groups: int) -> Tensor:
        ctx.save_for_backward(masks, weights, group)
        ctx.num_groups = num_groups
        return torch.ops.pps_fast.mixture_fwd(masks, weights, group, num_groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        masks, weights, group = ctx.saved_tensors
        found = torch.ops.pps_fast.mixture_bwd(grad, masks, weights, group, ctx.num_groups)
        return found[0].to(masks.dtype), found[1].to(weights.dtype), None, None


class _FusedPeakMixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, group: Tensor, num_groups: int) -> Tensor:
        found, peak, place = torch.ops.pps_fast.peak_mixture_fwd(masks, group, num_groups, equations.PEAK_FLOOR)
        ctx.save_for_backward(found, peak, place, group)
        ctx.dtype = masks.dtype
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = torch.ops.pps_fast.peak_mixture_bwd(grad, *ctx.saved_tensors, equations.PEAK_FLOOR)
        return found.to(ctx.dtype), None, None


def _unsupported(group: Tensor, num_groups: int, num_dims: dict[str, int], **tensors: Tensor) -> list[str]:
    """Says what is common to the ops: devices, dtypes and shapes of tensors [B, E, ...], and their groups."""
    if kernel is None:
        return ["triton is not installed"]
    reasons = []
    for name, x in tensors.items():
        if not x.is_cuda and not kernel.is_interpreted():
            reasons.append(f"{name} is on {x.device}; the kernel needs a CUDA device")
        if group.device != x.device:
            reasons.append(f"group is on {group.device}, {name} on {x.device}; the kernel needs one device")
        if x.dtype not in _FUSED_DTYPES:
            reasons.append(f"{name} is {x.dtype}; the kernel computes in float32")
        if x.dim() != num_dims[name] or 0 in x.shape:
            reasons.append(
                f"{name} has shape {tuple(x.shape)}; the kernel needs {num_dims[name]} dimensions, none of them empty"
            )
        elif x.shape[1] > _MAX_COMPONENTS:
            reasons.append(f"{name} has {x.shape[1]} components; the kernel takes 1 to {_MAX_COMPONENTS}")
        elif group.shape != x.shape[1:2] or group.is_floating_point():
            reasons.append(
                f"group is {group.dtype} of shape {tuple(group.shape)}; the kernel needs an integer for each of the "
                f"{x.shape[1]} components of {name}"
            )
    if num_groups < 1:
        reasons.append(f"num_groups = {num_groups}; the kernel needs at least 1")
    return reasons


def _importance_unsupported(score: Tensor, group: Tensor, num_groups: int) -> list[str]:
    """Says why the kernel cannot compute the importance weights."""
    return _unsupported(group, num_groups, {"score": 2}, score=score)


def _peak_mixture_unsupported(masks: Tensor, group: Tensor, num_groups: int) -> list[str]:
    """Says why the kernel cannot mix these masks."""
    reasons = _unsupported(group, num_groups, {"masks": 3}, masks=masks)
    if masks.shape[-1] > _MAX_POSITIONS:
        reasons.append(f"masks have {masks.shape[-1]} positions; the kernel takes 1 to {_MAX_POSITIONS}")
    return reasons


def _mixture_unsupported(masks: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> list[str]:
    """Says why the kernel cannot mix these masks with these weights."""
    reasons = _peak_mixture_unsupported(masks, group, num_groups)
    reasons += [
        reason
        for reason in _unsupported(group, num_groups, {"importance": 2}, importance=importance)
        if reason not in reasons
    ]
    if importance.shape != masks.shape[:2]:
        reasons.append(
            f"importance has shape {tuple(importance.shape)}, masks {tuple(masks.shape)}; the kernel needs a weight "
            "for each mask"
        )
    return reasons


def _fused_importance(score: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _FusedImportance.apply(score, group, num_groups)


def _fused_mixture(masks: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    mixed = _FusedMixture.apply(masks, importance, group, num_groups)
    return mixed.to(torch.promote_types(masks.dtype, importance.dtype))


def _fused_peak_mixture(masks: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _FusedPeakMixture.apply(masks, group, num_groups).to(masks.dtype)


def _op(name: str, fused: Any, unsupported: Any) -> Op:
    is_interpreted = kernel is not None and kernel.is_interpreted()
    equation = getattr(equations, name)
    return Op(name, torch=equation, triton=fused, unsupported=unsupported, is_interpreted=is_interpreted)


importance = _op("importance", _fused_importance, _importance_unsupported)
mixture = _op("mixture", _fused_mixture, _mixture_unsupported)
peak_mixture = _op("peak_mixture", _fused_peak_mixture, _peak_mixture_unsupported)
# once per evaluated sample, equation only
boundaries = Op("boundaries", torch=equations.boundaries)
