"""Pulling and pushing losses (Eqs. 5-7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.backend import Op

try:
    from pps_fast.kernels import pull_push as kernel
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    kernel = None

_FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# one program holds all pairs of a sample's rows
_MAX_ROWS = 64
_MAX_POSITIONS = 512

_library = torch.library.Library("pps_fast", "FRAGMENT")
_library.define(
    "push_fwd(Tensor masks, Tensor group, float target, bool normalize, float row_sum_floor) -> (Tensor, Tensor)"
)
_library.define("pull_distant_fwd(Tensor center, Tensor group, int num_groups) -> (Tensor, Tensor)")
_library.define("pull_push_bwd(Tensor grad, Tensor unit_grad) -> Tensor")


def _scaled(grad: Tensor, unit_grad: Tensor) -> Tensor:
    """Gradient of the batch's mean, from those of the samples' losses and the mean's."""
    return unit_grad * (grad / unit_grad.shape[0])


for _device in ("CPU", "CUDA"):
    _library.impl("pull_push_bwd", _scaled, _device)
    if kernel is not None:
        _library.impl("push_fwd", kernel.push_fwd, _device)
        _library.impl("pull_distant_fwd", kernel.pull_distant_fwd, _device)


def _fake_loss(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], dtype=torch.float32), x.new_empty(x.shape, dtype=torch.float32)


@torch.library.register_fake("pps_fast::push_fwd")
def _fake_push(
    masks: Tensor, group: Tensor, target: float, normalize: bool, row_sum_floor: float
) -> tuple[Tensor, Tensor]:
    return _fake_loss(masks)


@torch.library.register_fake("pps_fast::pull_distant_fwd")
def _fake_pull(center: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    return _fake_loss(center)


@torch.library.register_fake("pps_fast::pull_push_bwd")
def _fake_bwd(grad: Tensor, unit_grad: Tensor) -> Tensor:
    return torch.empty_like(unit_grad)


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
    def forward(ctx: Any, center: Tensor, group: Tensor, num_groups: int) -> Tensor:
        loss, unit_grad = torch.ops.pps_fast.pull_distant_fwd(center, group, num_groups)
        ctx.save_for_backward(unit_grad)
        ctx.dtype = center.dtype
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (unit_grad,) = ctx.saved_tensors
        return torch.ops.pps_fast.pull_push_bwd(grad, unit_grad).to(ctx.dtype), None, None


def _unsupported(name: str, x: Tensor, num_dims: int, group: Tensor) -> list[str]:
    """Says what is common to both losses: device, dtype, shape and groups of x [B, n, ...]."""
    if kernel is None:
        return ["triton is not installed"]
    reasons = []
    if not x.is_cuda and not kernel.is_interpreted():
        reasons.append(f"{name} is on {x.device}; the kernel needs a CUDA device")
    if group.device != x.device:
        reasons.append(f"group is on {group.device}, {name} on {x.device}; the kernel needs one device")
    if x.dtype not in _FUSED_DTYPES:
        reasons.append(f"{name} is {x.dtype}; the kernel computes in float32")
    if x.dim() != num_dims or 0 in x.shape:
        reasons.append(f"{name} has shape {tuple(x.shape)}; the kernel needs {num_dims} dimensions, none of them empty")
        return reasons
    if x.shape[1] > _MAX_ROWS:
        reasons.append(f"{name} has {x.shape[1]} rows; the kernel takes 1 to {_MAX_ROWS}")
    if group.shape != x.shape[1:2] or group.is_floating_point():
        reasons.append(
            f"group is {group.dtype} of shape {tuple(group.shape)}; the kernel needs an integer for each of the "
            f"{x.shape[1]} rows of {name}"
        )
    return reasons


def _push_unsupported(masks: Tensor, group: Tensor, target: float, normalize: bool = True) -> list[str]:
    """Says why the kernel cannot compute the pushing loss."""
    reasons = _unsupported("masks", masks, 3, group)
    if masks.shape[-1] > _MAX_POSITIONS:
        reasons.append(f"masks have {masks.shape[-1]} positions; the kernel takes 1 to {_MAX_POSITIONS}")
    return reasons


def _pull_unsupported(center: Tensor, group: Tensor, num_groups: int) -> list[str]:
    """Says why the kernel cannot compute the pulling loss."""
    return _unsupported("center", center, 2, group)


def _fused_push(masks: Tensor, group: Tensor, target: float, normalize: bool = True) -> Tensor:
    return _FusedPush.apply(masks, group, float(target), bool(normalize))


def _fused_pull(center: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return _FusedPull.apply(center, group, num_groups)


_is_interpreted = kernel is not None and kernel.is_interpreted()

pull_distant = Op(
    "pull_distant",
    torch=equations.pull_distant,
    triton=_fused_pull,
    unsupported=_pull_unsupported,
    is_interpreted=_is_interpreted,
)
# variants of one ablation table, equations only
pull_middle = Op("pull_middle", torch=equations.pull_middle)
pull_all = Op("pull_all", torch=equations.pull_all)
push = Op(
    "push", torch=equations.push, triton=_fused_push, unsupported=_push_unsupported, is_interpreted=_is_interpreted
)
