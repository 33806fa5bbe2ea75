"""Rewards of masks against a curve, forward and backward.

With T' the frames of a sample that exist, s its curve, g one of its masks, p the power:

    m = sum s / T'      v = sum (s - m)^2 / T'      z = (s - m) / sqrt v,  0 for a constant curve
    n = sum g^2 + ENERGY_FLOOR                      R = sum g z / n^p

    dg = (z / n^p - 2 p R g / n) dR
    dz = sum over the masks of g / n^p dR           ds = (dz - mean dz - z mean(z dz)) / sqrt v,  0 for a constant curve

One program per sample: the curve is read and standardized once for all masks, whose blocks follow one another, and the
curve's gradient is summed over them without atomics.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# as in the equation
ENERGY_FLOOR = tl.constexpr(1e-10)
# squared: so many roundings of fp32, 2^-23 each, of the root mean square
CONSTANT_SHARE = tl.constexpr((32 * 2.0**-23) ** 2)
# elements of masks held by one program
_BLOCK_ELEMENTS = 1024


@triton.jit
def _curve(p_curve, p_valid, T: tl.constexpr, BLOCK_T: tl.constexpr):
    """Loads the curve of a program's sample.

    Returns the sample, offsets [T], which frames exist [T], how many, zeta [T], and 1 / std, 0 for a constant curve.
    """
    i_b = tl.program_id(0).to(tl.int64)
    o_t = tl.arange(0, BLOCK_T)
    m_t = o_t < T
    if p_valid is not None:
        m_t = m_t & (tl.load(p_valid + i_b * T + o_t, mask=m_t, other=0) != 0)
    b_curve = tl.load(p_curve + i_b * T + o_t, mask=m_t, other=0.0).to(tl.float32)
    # a sample without frames is divided by 1
    num = tl.maximum(tl.sum(m_t.to(tl.float32), axis=0), 1.0)
    b_away = tl.where(m_t, b_curve - tl.sum(b_curve, axis=0) / num, 0.0)
    b_variance = tl.sum(b_away * b_away, axis=0) / num
    # not >, which would hide a NaN
    is_constant = b_variance <= tl.sum(b_curve * b_curve, axis=0) / num * CONSTANT_SHARE
    b_inverse = tl.where(is_constant, 0.0, 1.0 / tl.sqrt(tl.where(is_constant, 1.0, b_variance)))
    return i_b, o_t, m_t, num, b_away * b_inverse, b_inverse


@triton.jit
def _rows(p_masks, i_b, i_n, o_t, m_t, N: tl.constexpr, T: tl.constexpr, POWER: tl.constexpr, BLOCK_N: tl.constexpr):
    """Loads a block of masks; returns their indices and offsets, which exist, masks [N, T], n and 1 / n^p [N]."""
    o_n = i_n + tl.arange(0, BLOCK_N)
    o_row = i_b * N + o_n
    m_all = (o_n < N)[:, None] & m_t[None, :]
    b_mask = tl.load(p_masks + o_row[:, None] * T + o_t[None, :], mask=m_all, other=0.0).to(tl.float32)
    b_energy = tl.sum(b_mask * b_mask, axis=1) + ENERGY_FLOOR
    return o_n, o_row, b_mask, b_energy, tl.exp(-POWER * tl.log(b_energy))


@triton.jit
def mask_reward_fwd_kernel(
    p_masks,
    p_curve,
    p_valid,
    p_reward,
    POWER: tl.constexpr,
    N: tl.constexpr,
    T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    i_b, o_t, m_t, num, b_zeta, b_inverse = _curve(p_curve, p_valid, T, BLOCK_T)
    for i_n in range(0, N, BLOCK_N):
        o_n, o_row, b_mask, b_energy, b_scale = _rows(p_masks, i_b, i_n, o_t, m_t, N, T, POWER, BLOCK_N)
        b_reward = tl.sum(b_mask * b_zeta[None, :], axis=1) * b_scale
        tl.store(p_reward + o_row, b_reward, mask=o_n < N)


@triton.jit
def mask_reward_bwd_kernel(
    p_masks,
    p_curve,
    p_valid,
    p_reward,
    p_grad,
    p_grad_masks,
    p_grad_curve,
    POWER: tl.constexpr,
    N: tl.constexpr,
    T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    i_b, o_t, m_t, num, b_zeta, b_inverse = _curve(p_curve, p_valid, T, BLOCK_T)
    # summed over masks after the loop, so that nothing is exchanged between threads inside it
    b_grad_zeta = tl.zeros([BLOCK_N, BLOCK_T], dtype=tl.float32)
    for i_n in range(0, N, BLOCK_N):
        o_n, o_row, b_mask, b_energy, b_scale = _rows(p_masks, i_b, i_n, o_t, m_t, N, T, POWER, BLOCK_N)
        b_grad = tl.load(p_grad + o_row, mask=o_n < N, other=0.0).to(tl.float32)
        b_reward = tl.load(p_reward + o_row, mask=o_n < N, other=0.0)
        b_along = b_grad * b_scale
        b_across = 2.0 * POWER * b_grad * b_reward / b_energy
        b_grad_mask = b_along[:, None] * b_zeta[None, :] - b_across[:, None] * b_mask
        m_all = (o_n < N)[:, None] & (o_t < T)[None, :]
        # of padding too, which is 0
        b_grad_mask = tl.where(m_t[None, :], b_grad_mask, 0.0)
        tl.store(p_grad_masks + o_row[:, None] * T + o_t[None, :], b_grad_mask, mask=m_all)
        b_grad_zeta += b_along[:, None] * b_mask
    b_sum = tl.sum(b_grad_zeta, axis=0)
    b_mean = tl.sum(b_sum, axis=0) / num
    b_share = tl.sum(b_sum * b_zeta, axis=0) / num
    b_grad_curve = tl.where(m_t, (b_sum - b_mean - b_zeta * b_share) * b_inverse, 0.0)
    tl.store(p_grad_curve + i_b * T + o_t, b_grad_curve, mask=o_t < T)


def _blocks(num_masks: int, num_positions: int) -> dict[str, int]:
    block_t = triton.next_power_of_2(num_positions)
    block_n = min(triton.next_power_of_2(num_masks), max(_BLOCK_ELEMENTS // block_t, 1))
    return {"BLOCK_N": block_n, "BLOCK_T": block_t}


def _launch(
    kernel: Any, masks: Tensor, curve: Tensor, frame_valid: Tensor | None, power: float, **others: Tensor
) -> None:
    """Runs a kernel with one program per sample; `others` are its further pointers."""
    num_samples, num_masks, num_positions = masks.shape
    with device_of(masks):
        kernel[(num_samples,)](
            p_masks=masks,
            p_curve=curve.contiguous(),
            p_valid=None if frame_valid is None else frame_valid.contiguous(),
            POWER=power,
            N=num_masks,
            T=num_positions,
            **_blocks(num_masks, num_positions),
            **others,
        )


def mask_reward_fwd(masks: Tensor, curve: Tensor, power: float, frame_valid: Tensor | None) -> Tensor:
    """Rewards of the masks of each sample against its curve.

    Args:
        masks: [B, n, T] fp32, fp16 or bf16.
        curve: [B, T], likewise.
        power: p.
        frame_valid: [B, T] bool, or None.
    Returns:
        [B, n] fp32.
    """
    masks = masks.contiguous()
    reward = empty(masks, *masks.shape[:2])
    _launch(mask_reward_fwd_kernel, masks, curve, frame_valid, power, p_reward=reward)
    return reward


def mask_reward_bwd(
    grad: Tensor, masks: Tensor, curve: Tensor, reward: Tensor, power: float, frame_valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of the rewards.

    Args:
        grad: [B, n] of the rewards.
        reward: [B, n] the forward pass's result.
        masks, curve, power, frame_valid: as in the forward pass.
    Returns:
        grad_masks [B, n, T] and grad_curve [B, T], fp32.
    """
    grad, masks = grad.contiguous(), masks.contiguous()
    grad_masks, grad_curve = empty(masks, *masks.shape), empty(masks, *curve.shape)
    _launch(
        mask_reward_bwd_kernel,
        masks,
        curve,
        frame_valid,
        power,
        p_reward=reward,
        p_grad=grad,
        p_grad_masks=grad_masks,
        p_grad_curve=grad_curve,
    )
    return grad_masks, grad_curve
