"""Masks of components over time, forward and backward (Eq. 3 and the published code's shapes).

With d = (t / (T - 1) - c) / s, s = max(width, width_floor) / sigma:

    shape 0  gaussian       m = exp(-d^2)
    shape 1  gaussian_peak  m = exp(-d^2 / 2 - e*),  e* the largest exponent of the row
    shape 2  laplace        m = exp(-|d| - e*)

    dm/dc = m (f(d) - f(d*)) / s      dm/ds = m (h(d) - h(d*)) / s
    f, h  = (2d, 2d^2), (d, d^2), (sign d, |d|);  d* at the row's peak, f* = h* = 0 for shape 0

The exponent is shifted before exp, so that a narrow mask between two positions is not 0 / 0.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

SHAPES = ("gaussian", "gaussian_peak", "laplace")
# positions held by one program; with few rows per program the grid stays wide
_BLOCK_ELEMENTS = 1024


@triton.jit
def _exponent(b_d, SHAPE: tl.constexpr):
    """Exponent of the mask at distance d."""
    if SHAPE == 0:
        return -b_d * b_d
    elif SHAPE == 1:
        return -0.5 * b_d * b_d
    else:
        return -tl.abs(b_d)


@triton.jit
def _slope(b_d, SHAPE: tl.constexpr):
    """f(d) = s d(exponent)/dc."""
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
    """Loads a block of rows: offsets, masks of valid entries, width, std and distance."""
    o_row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_t = tl.arange(0, BLOCK_T)
    m_row = o_row < num_rows
    b_center = tl.load(p_center + o_row, mask=m_row, other=0.5).to(tl.float32)
    b_width = tl.load(p_width + o_row, mask=m_row, other=1.0).to(tl.float32)
    b_std = tl.maximum(b_width, WIDTH_FLOOR) / SIGMA
    b_position = o_t.to(tl.float32) / (T - 1)
    b_d = (b_position[None, :] - b_center[:, None]) / b_std[:, None]
    m_all = m_row[:, None] & (o_t < T)[None, :]
    return o_row, o_t, m_row, m_all, b_width, b_std, b_d


@triton.jit
def _fwd_kernel(
    p_center,
    p_width,
    p_mask,
    num_rows,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
    SHAPE: tl.constexpr,
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
    tl.store(p_mask + o_row[:, None] * T + o_t[None, :], tl.exp(b_exponent), mask=m_all)


@triton.jit
def _bwd_kernel(
    p_center,
    p_width,
    p_mask,
    p_grad,
    p_grad_center,
    p_grad_width,
    num_rows,
    SIGMA: tl.constexpr,
    WIDTH_FLOOR: tl.constexpr,
    SHAPE: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row, o_t, m_row, m_all, b_width, b_std, b_d = _rows(
        p_center, p_width, num_rows, SIGMA, WIDTH_FLOOR, T, BLOCK_R, BLOCK_T
    )
    o_all = o_row[:, None] * T + o_t[None, :]
    b_weight = tl.load(p_mask + o_all, mask=m_all, other=0.0)
    b_weight *= tl.load(p_grad + o_all, mask=m_all, other=0.0).to(tl.float32)
    b_f = _slope(b_d, SHAPE)
    b_h = b_f * b_d
    if SHAPE != 0:
        b_exponent = tl.where(m_all, _exponent(b_d, SHAPE), float("-inf"))
        # one arg-max, the first of equal ones, takes the gradient of the peak
        is_peak = o_t[None, :] == tl.argmax(b_exponent, axis=1)[:, None]
        b_f -= tl.sum(tl.where(is_peak, b_f, 0.0), axis=1)[:, None]
        b_h -= tl.sum(tl.where(is_peak, b_h, 0.0), axis=1)[:, None]
    b_grad_center = tl.sum(b_weight * b_f, axis=1) / b_std
    b_grad_std = tl.sum(b_weight * b_h, axis=1) / b_std
    b_grad_width = tl.where(b_width >= WIDTH_FLOOR, b_grad_std / SIGMA, 0.0)
    tl.store(p_grad_center + o_row, b_grad_center, mask=m_row)
    tl.store(p_grad_width + o_row, b_grad_width, mask=m_row)


def _blocks(num_positions: int) -> dict[str, int]:
    block_t = triton.next_power_of_2(num_positions)
    return {"BLOCK_R": max(_BLOCK_ELEMENTS // block_t, 1), "BLOCK_T": block_t}


def gaussian_mask_fwd(
    center: Tensor, width: Tensor, sigma: float, num_positions: int, width_floor: float, shape: int
) -> Tensor:
    """Draws the masks.

    Args:
        center, width: [...] of one shape, fp32, fp16 or bf16.
        sigma, num_positions, width_floor: as in the equation.
        shape: index into SHAPES.
    Returns:
        [..., T] fp32.
    """
    center, width = center.contiguous(), width.contiguous()
    mask = empty(center, *center.shape, num_positions)
    blocks = _blocks(num_positions)
    grid = (triton.cdiv(center.numel(), blocks["BLOCK_R"]),)
    with device_of(center):
        _fwd_kernel[grid](
            p_center=center,
            p_width=width,
            p_mask=mask,
            num_rows=center.numel(),
            SIGMA=sigma,
            WIDTH_FLOOR=width_floor,
            SHAPE=shape,
            T=num_positions,
            **blocks,
        )
    return mask


def gaussian_mask_bwd(
    grad: Tensor, center: Tensor, width: Tensor, mask: Tensor, sigma: float, width_floor: float, shape: int
) -> tuple[Tensor, Tensor]:
    """Gradients of the masks.

    Args:
        grad: [..., T] gradient of the masks.
        center, width: [...] as given to the forward pass.
        mask: [..., T] its result.
        sigma, width_floor, shape: as given to it.
    Returns:
        grad_center, grad_width: [...] fp32; the width's is 0 below width_floor.
    """
    center, width, grad = center.contiguous(), width.contiguous(), grad.contiguous()
    grad_center, grad_width = empty(center, *center.shape), empty(center, *center.shape)
    num_positions = mask.shape[-1]
    blocks = _blocks(num_positions)
    grid = (triton.cdiv(center.numel(), blocks["BLOCK_R"]),)
    with device_of(center):
        _bwd_kernel[grid](
            p_center=center,
            p_width=width,
            p_mask=mask,
            p_grad=grad,
            p_grad_center=grad_center,
            p_grad_width=grad_width,
            num_rows=center.numel(),
            SIGMA=sigma,
            WIDTH_FLOOR=width_floor,
            SHAPE=shape,
            T=num_positions,
            **blocks,
        )
    return grad_center, grad_width


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on CPU tensors."""
    return not isinstance(_fwd_kernel, triton.JITFunction)
