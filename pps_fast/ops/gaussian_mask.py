"""Masks of components over time (Eq. 3) and the published code's variants, with the logs that attention adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.registration import device_reasons, dtype_reasons, fused_op, load_kernel, register

kernel = load_kernel("gaussian_mask")

# one program holds all positions of a row
_MAX_POSITIONS = 4096


def _fake_fwd(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float, shape: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    size = (*center.shape, num_positions)
    return center.new_empty(size, dtype=torch.float32), center.new_empty(size, dtype=torch.float32)


def _fake_bwd(grad: Tensor, grad_log: Tensor, center: Tensor, width: Tensor, *constants: Any) -> tuple[Tensor, Tensor]:
    return center.new_empty(center.shape, dtype=torch.float32), center.new_empty(center.shape, dtype=torch.float32)


register(
    "gaussian_mask_fwd(Tensor center, Tensor width, float sigma, int num_positions, float width_floor, int shape,"
    " bool inverse) -> (Tensor, Tensor)",
    kernel and kernel.gaussian_mask_fwd,
    _fake_fwd,
)
register(
    "gaussian_mask_bwd(Tensor grad, Tensor grad_log, Tensor center, Tensor width, float sigma, float width_floor,"
    " int shape, bool inverse) -> (Tensor, Tensor)",
    kernel and kernel.gaussian_mask_bwd,
    _fake_bwd,
)


class _FusedMask(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, center: Tensor, width: Tensor, sigma: float, num_positions: int, *constants: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(center, width)
        ctx.constants = (sigma, *constants)
        return torch.ops.pps_fast.gaussian_mask_fwd(center, width, sigma, num_positions, *constants)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_log: Tensor) -> tuple[Tensor | None, ...]:
        center, width = ctx.saved_tensors
        found = torch.ops.pps_fast.gaussian_mask_bwd(grad, grad_log, center, width, *ctx.constants)
        return found[0].to(center.dtype), found[1].to(width.dtype), None, None, None, None, None


def _unsupported(
    center: Tensor,
    width: Tensor,
    sigma: float,
    num_positions: int,
    width_floor: float = 0.01,
    inverse: bool = False,
) -> list[str]:
    """Says why the kernel cannot draw these masks."""
    reasons = device_reasons(center=center, width=width) + dtype_reasons(center=center, width=width)
    if center.shape != width.shape:
        reasons.append(
            f"center has shape {tuple(center.shape)}, width {tuple(width.shape)}; the kernel needs one shape"
        )
    if not 2 <= num_positions <= _MAX_POSITIONS:
        reasons.append(f"num_positions = {num_positions}; the kernel draws 2 to {_MAX_POSITIONS}")
    return reasons


def _fused(shape: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the fused implementation of one mask shape, with the equation's signature."""

    def fused(
        center: Tensor,
        width: Tensor,
        sigma: float,
        num_positions: int,
        width_floor: float = 0.01,
        inverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        index = kernel.SHAPES.index(shape)
        return _FusedMask.apply(center, width, float(sigma), num_positions, float(width_floor), index, inverse)

    return fused


gaussian_mask = fused_op("gaussian_mask", _fused("gaussian"), _unsupported)
gaussian_peak_mask = fused_op("gaussian_peak_mask", _fused("gaussian_peak"), _unsupported)
laplace_mask = fused_op("laplace_mask", _fused("laplace"), _unsupported)
