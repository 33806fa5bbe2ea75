"""Masks of components over time and their logs, forward and backward (Eq. 3 and the published code's shapes).

With d = (t / (T - 1) - c) / s, s = max(width, width_floor) / sigma:

    shape 0  gaussian       f = exp(-d^2)
    shape 1  gaussian_peak  f = exp(-d^2 / 2 - e*),  e* the largest exponent of the row
    shape 2  laplace        f = exp(-|d| - e*)

    m = f, or 1 - f if inverse        l = log(m + MASK_FLOOR)
    df = +-(dm + dl / (m + MASK_FLOOR))
    dc = sum_t df f (a(d) - a(d*)) / s      ds = sum_t df f (b(d) - b(d*)) / s
    a, b = (2d, 2d^2), (d, d^2), (sign d, |d|);  d* at the row's peak, a* = b* = 0 for shape 0

The exponent of shape 0 alone, e = -d^2, has dc = sum_t de a / s and ds = sum_t de b / s.

The exponent is shifted before exp, so that a narrow mask between two positions is not 0 / 0. The backward kernel
multiplies f by 1 / (m + MASK_FLOOR) itself, so that the gradient of a vanishing mask, of order 1e10, is never stored.

Letters: R rows (components of all samples) of a program.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty, incoming, or_unread

SHAPES = ("gaussian", "gaussian_peak", "laplace")
# as in the equation
MASK_FLOOR = tl.constexpr(1e-10)
# a fused multiply-add would leave a rest of the exponent at its own peak, where an inverse mask is 0
OPTIONS = {"enable_fp_fusion": False}
# positions held by one program; few rows per program keep many programs in the grid
_BLOCK_ELEMENTS = 1024


@triton.jit
def _exponent(b_d, SHAPE: tl.constexpr):
    """Returns the exponent of the mask at distance d."""
    if SHAPE == 0:
        return -b_d * b_d
    elif SHAPE == 1:
        return -0.5 * b_d * b_d
    else:
        return -tl.abs(b_d)


@triton.jit
def _slope(b_d, SHAPE: tl.constexpr):
    """Returns a(d) = s d(exponent)/dc."""
    if SHAPE == 0:
        return 2.0 * b_d
    elif SHAPE == 1:
        return b_d
    else:
        return tl.where(b_d > 0, 1.0, tl.where(b_d < 0, -1.0, 0.0))


@triton.jit
def _rows(
    p_center,
    p_width,
    num_rows,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Loads a block of rows.

    Returns offsets [R] and [T], masks of valid elements [R] and [R, T], width and std [R], and distances [R, T].
    """
    o_row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_t = tl.arange(0, BLOCK_T)
    m_row = o_row < num_rows
    b_center = tl.load(p_center + o_row, mask=m_row, other=0.5).to(tl.float32)
    b_width = tl.load(p_width + o_row, mask=m_row, other=1.0).to(tl.float32)
    b_std = tl.maximum(b_width, WIDTH_FLOOR) / SIGMA
    # exact division, as in the equation: at a peak the distance is 0 and not nearly 0
    b_position = tl.div_rn(o_t.to(tl.float32), (T - 1) * 1.0)
    b_d = tl.div_rn(b_position[None, :] - b_center[:, None], b_std[:, None])
    m_all = m_row[:, None] & (o_t < T)[None, :]
    return o_row, o_t, m_row, m_all, b_width, b_std, b_d


@triton.jit
def _mask(b_exponent, INVERSE: tl.constexpr):
    """Returns exp(e), or 1 - exp(e); near e = 0 the latter is a series, because the difference would lose digits."""
    if INVERSE:
        b_x = -b_exponent
        b_series = 1.0 - b_x / 5.0 * (1.0 - b_x / 6.0 * (1.0 - b_x / 7.0))
        b_series = b_x * (1.0 - b_x / 2.0 * (1.0 - b_x / 3.0 * (1.0 - b_x / 4.0 * b_series)))
        return tl.where(b_x < 0.5, b_series, 1.0 - tl.exp(b_exponent))
    else:
        return tl.exp(b_exponent)


@triton.jit
def _store_grads(
    p_grad_center,
    p_grad_width,
    o_row,
    m_row,
    b_width,
    b_std,
    b_weight,
    b_a,
    b_b,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
):
    """Sums weights [R, T] times a and b over positions and stores the gradients of center and width, [R]."""
    b_grad_center = tl.sum(b_weight * b_a, axis=1) / b_std
    b_grad_std = tl.sum(b_weight * b_b, axis=1) / b_std
    b_grad_width = tl.where(b_width >= WIDTH_FLOOR, b_grad_std / SIGMA, 0.0)
    tl.store(p_grad_center + o_row, b_grad_center, mask=m_row)
    tl.store(p_grad_width + o_row, b_grad_width, mask=m_row)


@triton.jit(do_not_specialize=["num_rows"])
def gaussian_mask_fwd_kernel(
    p_center,
    p_width,
    p_mask,
    p_log,
    num_rows,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
    SHAPE: tl.constexpr,
    INVERSE: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row, o_t, m_row, m_all, b_width, b_std, b_d = _rows(
        p_center, p_width, num_rows, SIGMA, WIDTH_FLOOR, T, BLOCK_R, BLOCK_T
    )
    b_exponent = _exponent(b_d, SHAPE)
    if SHAPE != 0:
        b_peak = tl.max(tl.where(m_all, b_exponent, float("-inf")), axis=1)
        # a row beyond the last has no peak
        b_exponent -= tl.where(m_row, b_peak, 0.0)[:, None]
    b_mask = _mask(b_exponent, INVERSE)
    o_all = o_row[:, None] * T + o_t[None, :]
    tl.store(p_mask + o_all, b_mask, mask=m_all)
    tl.store(p_log + o_all, tl.log(b_mask + MASK_FLOOR), mask=m_all)


@triton.jit(do_not_specialize=["num_rows", "has_grad", "has_grad_log"])
def gaussian_mask_bwd_kernel(
    p_center,
    p_width,
    p_grad,
    p_grad_log,
    p_grad_center,
    p_grad_width,
    num_rows,
    has_grad,
    has_grad_log,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
    SHAPE: tl.constexpr,
    INVERSE: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row, o_t, m_row, m_all, b_width, b_std, b_d = _rows(
        p_center, p_width, num_rows, SIGMA, WIDTH_FLOOR, T, BLOCK_R, BLOCK_T
    )
    b_exponent = _exponent(b_d, SHAPE)
    b_a = _slope(b_d, SHAPE)
    b_b = b_a * b_d
    if SHAPE != 0:
        # one arg-max, the first of equal ones, takes the gradient of the peak
        is_peak = o_t[None, :] == tl.argmax(tl.where(m_all, b_exponent, float("-inf")), axis=1)[:, None]
        b_exponent -= tl.sum(tl.where(is_peak, b_exponent, 0.0), axis=1)[:, None]
        b_a -= tl.sum(tl.where(is_peak, b_a, 0.0), axis=1)[:, None]
        b_b -= tl.sum(tl.where(is_peak, b_b, 0.0), axis=1)[:, None]
    b_value = tl.exp(b_exponent)
    b_mask = _mask(b_exponent, INVERSE)
    o_all = o_row[:, None] * T + o_t[None, :]
    b_weight = b_value * incoming(p_grad, o_all, m_all & (has_grad != 0))
    b_weight += (b_value / (b_mask + MASK_FLOOR)) * incoming(p_grad_log, o_all, m_all & (has_grad_log != 0))
    if INVERSE:
        b_weight = -b_weight
    # beyond the last position the distance grows and the value may overflow
    b_weight = tl.where(m_all, b_weight, 0.0)
    _store_grads(p_grad_center, p_grad_width, o_row, m_row, b_width, b_std, b_weight, b_a, b_b, SIGMA, WIDTH_FLOOR)


@triton.jit(do_not_specialize=["num_rows"])
def gaussian_exponent_fwd_kernel(
    p_center,
    p_width,
    p_exponent,
    num_rows,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row, o_t, m_row, m_all, b_width, b_std, b_d = _rows(
        p_center, p_width, num_rows, SIGMA, WIDTH_FLOOR, T, BLOCK_R, BLOCK_T
    )
    tl.store(p_exponent + o_row[:, None] * T + o_t[None, :], _exponent(b_d, 0), mask=m_all)


@triton.jit(do_not_specialize=["num_rows"])
def gaussian_exponent_bwd_kernel(
    p_center,
    p_width,
    p_grad,
    p_grad_center,
    p_grad_width,
    num_rows,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row, o_t, m_row, m_all, b_width, b_std, b_d = _rows(
        p_center, p_width, num_rows, SIGMA, WIDTH_FLOOR, T, BLOCK_R, BLOCK_T
    )
    b_grad = tl.load(p_grad + o_row[:, None] * T + o_t[None, :], mask=m_all, other=0.0).to(tl.float32)
    b_a = _slope(b_d, 0)
    _store_grads(p_grad_center, p_grad_width, o_row, m_row, b_width, b_std, b_grad, b_a, b_a * b_d, SIGMA, WIDTH_FLOOR)


def _blocks(num_positions: int) -> dict[str, int]:
    block_t = triton.next_power_of_2(num_positions)
    return {"BLOCK_R": max(_BLOCK_ELEMENTS // block_t, 1), "BLOCK_T": block_t}


def _launch(kernel: Any, center: Tensor, num_positions: int, **arguments: Any) -> None:
    """Runs a kernel over blocks of rows; `arguments` are its further arguments."""
    blocks = _blocks(num_positions)
    with device_of(center):
        kernel[(triton.cdiv(center.numel(), blocks["BLOCK_R"]),)](
            p_center=center,
            num_rows=center.numel(),
            T=num_positions,
            **blocks,
            **arguments,
            **OPTIONS,
        )


def gaussian_mask_fwd(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float, shape: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Masks and their logs, Eq. (3).

    Args:
        center, width: [...] of one shape, fp32, fp16 or bf16.
        sigma, width_floor, inverse: as in the equation.
        num_positions: T.
        shape: index into SHAPES.
    Returns:
        masks and their logs, [..., T] fp32.
    """
    center, width = center.contiguous(), width.contiguous()
    mask, log = (empty(center, *center.shape, num_positions) for _ in range(2))
    constants = {"SIGMA": sigma, "WIDTH_FLOOR": width_floor, "SHAPE": shape, "INVERSE": inverse}
    _launch(gaussian_mask_fwd_kernel, center, num_positions, p_width=width, p_mask=mask, p_log=log, **constants)
    return mask, log


def gaussian_mask_bwd(
    grad: Tensor | None,
    grad_log: Tensor | None,
    center: Tensor,
    width: Tensor,
    sigma: float,
    width_floor: float,
    shape: int,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the masks.

    Args:
        grad, grad_log: [..., T] gradients of the masks and of their logs; None for none.
        center, width, sigma, width_floor, shape, inverse: as in the forward pass.
    Returns:
        grad_center, grad_width: [...] fp32; the width's is 0 below width_floor.
    """
    center, width = center.contiguous(), width.contiguous()
    grad_center, grad_width = empty(center, *center.shape), empty(center, *center.shape)
    _launch(
        gaussian_mask_bwd_kernel,
        center,
        # without any gradient the number does not matter
        max(2 if x is None else x.shape[-1] for x in (grad, grad_log)),
        p_width=width,
        p_grad=or_unread(grad, center, torch.float32),
        p_grad_log=or_unread(grad_log, center, torch.float32),
        has_grad=int(grad is not None),
        has_grad_log=int(grad_log is not None),
        p_grad_center=grad_center,
        p_grad_width=grad_width,
        SIGMA=sigma,
        WIDTH_FLOOR=width_floor,
        SHAPE=shape,
        INVERSE=inverse,
    )
    return grad_center, grad_width


def gaussian_exponent_fwd(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float
) -> Tensor:
    """Logs of Gaussian masks, exact where the masks underflow.

    Args:
        center, width, sigma, num_positions, width_floor: as `gaussian_mask_fwd`.
    Returns:
        [..., T] fp32.
    """
    center, width = center.contiguous(), width.contiguous()
    exponent = empty(center, *center.shape, num_positions)
    constants = {"SIGMA": sigma, "WIDTH_FLOOR": width_floor}
    _launch(gaussian_exponent_fwd_kernel, center, num_positions, p_width=width, p_exponent=exponent, **constants)
    return exponent


def gaussian_exponent_bwd(
    grad: Tensor, center: Tensor, width: Tensor, sigma: float, width_floor: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the logs.

    Args:
        grad: [..., T] gradient of the logs.
        center, width, sigma, width_floor: as in the forward pass.
    Returns:
        grad_center, grad_width: [...] fp32; the width's is 0 below width_floor.
    """
    center, width, grad = center.contiguous(), width.contiguous(), grad.contiguous()
    grad_center, grad_width = empty(center, *center.shape), empty(center, *center.shape)
    _launch(
        gaussian_exponent_bwd_kernel,
        center,
        grad.shape[-1],
        p_width=width,
        p_grad=grad,
        p_grad_center=grad_center,
        p_grad_width=grad_width,
        SIGMA=sigma,
        WIDTH_FLOOR=width_floor,
    )
    return grad_center, grad_width
