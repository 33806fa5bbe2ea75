"""Masks of components over time (Eq. 3) and the published code's variants, with the logs that attention adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import Contract, at_least, floats
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register

kernel = load_kernel("gaussian_mask")
_SHAPES: tuple[str, ...] = () if kernel is None else kernel.SHAPES

# one program holds all positions of a row
_MAX_POSITIONS = 4096


def _fake_fwd(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float, shape: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    size = (*center.shape, num_positions)
    return center.new_empty(size, dtype=torch.float32), center.new_empty(size, dtype=torch.float32)


def _fake_bwd(grad: Any, grad_log: Any, center: Tensor, width: Tensor, *constants: Any) -> tuple[Tensor, Tensor]:
    return center.new_empty(center.shape, dtype=torch.float32), center.new_empty(center.shape, dtype=torch.float32)


def _fake_exponent_fwd(center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float) -> Tensor:
    return center.new_empty((*center.shape, num_positions), dtype=torch.float32)


def _fake_exponent_bwd(grad: Tensor, center: Tensor, width: Tensor, *constants: Any) -> tuple[Tensor, Tensor]:
    return _fake_bwd(grad, grad, center, width)


register(launcher_of(kernel, "gaussian_mask_fwd"), _fake_fwd)
register(launcher_of(kernel, "gaussian_mask_bwd"), _fake_bwd)
register(launcher_of(kernel, "gaussian_exponent_fwd"), _fake_exponent_fwd)
register(launcher_of(kernel, "gaussian_exponent_bwd"), _fake_exponent_bwd)


class _FusedMask(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, center: Tensor, width: Tensor, sigma: float, num_positions: int, *constants: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(center, width)
        ctx.constants = (sigma, *constants)
        ctx.set_materialize_grads(False)
        return torch.ops.pps_fast.gaussian_mask_fwd(center, width, sigma, num_positions, *constants)

    @staticmethod
    @first_order_only("gaussian_mask, gaussian_peak_mask, laplace_mask")
    def backward(ctx: Any, grad: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
        center, width = ctx.saved_tensors
        grad_center, grad_width = torch.ops.pps_fast.gaussian_mask_bwd(grad, grad_log, center, width, *ctx.constants)
        return grad_center.to(center.dtype), grad_width.to(width.dtype), None, None, None, None, None


class _FusedExponent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float
    ) -> Tensor:
        ctx.save_for_backward(center, width)
        ctx.constants = (sigma, width_floor)
        return torch.ops.pps_fast.gaussian_exponent_fwd(center, width, sigma, num_positions, width_floor)

    @staticmethod
    @first_order_only("gaussian_exponent")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        center, width = ctx.saved_tensors
        grad_center, grad_width = torch.ops.pps_fast.gaussian_exponent_bwd(grad, center, width, *ctx.constants)
        return grad_center.to(center.dtype), grad_width.to(width.dtype), None, None, None


def _limits(num_positions: int, **_: Any) -> list[str]:
    """Says which number of positions the kernel does not draw."""
    if num_positions <= _MAX_POSITIONS:
        return []
    return [f"num_positions = {num_positions}; the kernel draws 2 to {_MAX_POSITIONS}"]


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
        index = _SHAPES.index(shape)
        return _FusedMask.apply(center, width, float(sigma), num_positions, float(width_floor), index, inverse)

    return fused


def _fused_exponent(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float = 0.01
) -> Tensor:
    return _FusedExponent.apply(center, width, float(sigma), num_positions, float(width_floor))


_CONTRACT: Contract = {"center": floats("..."), "width": floats("..."), "num_positions": at_least(2)}

gaussian_mask = fused_op(equations.gaussian_mask, _fused("gaussian"), _CONTRACT, _limits)
gaussian_peak_mask = fused_op(equations.gaussian_peak_mask, _fused("gaussian_peak"), _CONTRACT, _limits)
laplace_mask = fused_op(equations.laplace_mask, _fused("laplace"), _CONTRACT, _limits)
gaussian_exponent = fused_op(equations.gaussian_exponent, _fused_exponent, _CONTRACT, _limits)
