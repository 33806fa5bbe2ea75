"""Masks of components over time (Eq. 3) and the published code's variants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.backend import Op

try:
    from pps_fast.kernels import gaussian_mask as kernel
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    kernel = None

_FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# one program holds all positions of a row
_MAX_POSITIONS = 4096

_library = torch.library.Library("pps_fast", "FRAGMENT")
_library.define(
    "gaussian_mask_fwd(Tensor center, Tensor width, float sigma, int num_positions, float width_floor, int shape)"
    " -> Tensor"
)
_library.define(
    "gaussian_mask_bwd(Tensor grad, Tensor center, Tensor width, Tensor mask, float sigma, float width_floor,"
    " int shape) -> (Tensor, Tensor)"
)
if kernel is not None:
    for _device in ("CPU", "CUDA"):
        _library.impl("gaussian_mask_fwd", kernel.gaussian_mask_fwd, _device)
        _library.impl("gaussian_mask_bwd", kernel.gaussian_mask_bwd, _device)


@torch.library.register_fake("pps_fast::gaussian_mask_fwd")
def _fake_fwd(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float, shape: int
) -> Tensor:
    return center.new_empty((*center.shape, num_positions), dtype=torch.float32)


@torch.library.register_fake("pps_fast::gaussian_mask_bwd")
def _fake_bwd(
    grad: Tensor, center: Tensor, width: Tensor, mask: Tensor, sigma: float, width_floor: float, shape: int
) -> tuple[Tensor, Tensor]:
    return center.new_empty(center.shape, dtype=torch.float32), center.new_empty(center.shape, dtype=torch.float32)


class _FusedMask(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float, shape: int
    ) -> Tensor:
        mask = torch.ops.pps_fast.gaussian_mask_fwd(center, width, sigma, num_positions, width_floor, shape)
        ctx.save_for_backward(center, width, mask)
        ctx.constants = (sigma, width_floor, shape)
        return mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        center, width, mask = ctx.saved_tensors
        found = torch.ops.pps_fast.gaussian_mask_bwd(grad, center, width, mask, *ctx.constants)
        return found[0].to(center.dtype), found[1].to(width.dtype), None, None, None, None


def _unsupported(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float = 0.01
) -> list[str]:
    """Says why the kernel cannot draw these masks."""
    if kernel is None:
        return ["triton is not installed"]
    reasons = []
    if not center.is_cuda and not kernel.is_interpreted():
        reasons.append(f"center is on {center.device}; the kernel needs a CUDA device")
    if center.dtype not in _FUSED_DTYPES or width.dtype not in _FUSED_DTYPES:
        reasons.append(f"center is {center.dtype}, width {width.dtype}; the kernel computes in float32")
    if center.shape != width.shape:
        reasons.append(
            f"center has shape {tuple(center.shape)}, width {tuple(width.shape)}; the kernel needs one shape"
        )
    if not 2 <= num_positions <= _MAX_POSITIONS:
        reasons.append(f"num_positions = {num_positions}; the kernel draws 2 to {_MAX_POSITIONS}")
    return reasons


def _fused(shape: str) -> Any:
    """Returns the fused implementation of one mask shape, with the equation's signature."""

    def fused(center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float = 0.01) -> Tensor:
        index = kernel.SHAPES.index(shape)
        return _FusedMask.apply(center, width, float(sigma), num_positions, float(width_floor), index)

    return fused


def _op(name: str, shape: str, equation: Any) -> Op:
    is_interpreted = kernel is not None and kernel.is_interpreted()
    return Op(name, torch=equation, triton=_fused(shape), unsupported=_unsupported, is_interpreted=is_interpreted)


gaussian_mask = _op("gaussian_mask", "gaussian", equations.gaussian_mask)
gaussian_peak_mask = _op("gaussian_peak_mask", "gaussian_peak", equations.gaussian_peak_mask)
laplace_mask = _op("laplace_mask", "laplace", equations.laplace_mask)
