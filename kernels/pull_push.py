"""Pulling and pushing losses (Eqs. 5-7): a sample's loss and its gradient in one pass, one program per sample.

Pushing, with r = rows of M over their sums, G = r r^T, and same the pairs of one group:

    D = same (G - target I)      loss = sum D^2      dloss/dr = 4 D r
    dloss/dM_i = (4 (D r)_i - 4 sum_j D_ij G_ij) / sum_i;  the second term is <dloss/dr_i, r_i>, 0 for a floored sum

Pulling, with c a group's centers:

    loss = sum (max c - min c)^2      dloss/dc = 2 (max c - min c) at the maximum, the negative of it at the minimum

The minimum is the first of equal ones, the maximum the last: the ends of a stable sort.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# operands of tl.dot are not smaller
_SMALLEST_BLOCK = 16
# elements of a tile of masks held by one program; with twice as many, dots of 28 or 64 rows spill
_BLOCK_ELEMENTS = 1024


@triton.jit
def _tile(p_sample, o_n, o_t, N: tl.constexpr, T: tl.constexpr):
    """Loads rows o_n and columns o_t of a sample's masks, 0 outside."""
    m_all = (o_n < N)[:, None] & (o_t < T)[None, :]
    return tl.load(p_sample + o_n[:, None] * T + o_t[None, :], mask=m_all, other=0.0)


@triton.jit
def _push_kernel(
    p_masks,
    p_group,
    p_loss,
    p_grad,
    TARGET: tl.constexpr,
    ROW_SUM_FLOOR: tl.constexpr,
    NORMALIZE: tl.constexpr,
    N: tl.constexpr,
    T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    i_sample = tl.program_id(0).to(tl.int64)
    p_sample = p_masks + i_sample * N * T
    o_n = tl.arange(0, BLOCK_N)
    m_n = o_n < N
    # summed over positions after the loop: a row sum in it breaks a pass of the compiler
    b_total = tl.zeros([BLOCK_N, BLOCK_T], dtype=tl.float32)
    b_gram = tl.zeros([BLOCK_N, BLOCK_N], dtype=tl.float32)
    for i_t in range(0, T, BLOCK_T):
        b_masks = _tile(p_sample, o_n, i_t + tl.arange(0, BLOCK_T), N, T)
        b_total += b_masks
        b_gram = tl.dot(b_masks, tl.trans(b_masks), b_gram, input_precision="ieee")
    b_sum = tl.sum(b_total, axis=1)
    b_inverse = 1.0 / tl.maximum(b_sum, ROW_SUM_FLOOR)
    if NORMALIZE:
        b_gram *= b_inverse[:, None] * b_inverse[None, :]

    b_group = tl.load(p_group + o_n, mask=m_n, other=0)
    is_same = (b_group[:, None] == b_group[None, :]) & m_n[:, None] & m_n[None, :]
    b_target = tl.where(o_n[:, None] == o_n[None, :], TARGET, 0.0)
    b_distance = tl.where(is_same, b_gram - b_target, 0.0)
    tl.store(p_loss + i_sample, tl.sum(tl.sum(b_distance * b_distance, axis=1), axis=0))

    b_distance *= 4.0
    b_along = tl.where(b_sum >= ROW_SUM_FLOOR, tl.sum(b_distance * b_gram, axis=1), 0.0)
    if NORMALIZE:
        b_distance *= b_inverse[None, :]
    for i_t in range(0, T, BLOCK_T):
        o_t = i_t + tl.arange(0, BLOCK_T)
        b_grad = tl.dot(b_distance, _tile(p_sample, o_n, o_t, N, T), input_precision="ieee")
        if NORMALIZE:
            b_grad = (b_grad - b_along[:, None]) * b_inverse[:, None]
        m_all = m_n[:, None] & (o_t < T)[None, :]
        tl.store(p_grad + i_sample * N * T + o_n[:, None] * T + o_t[None, :], b_grad, mask=m_all)


@triton.jit
def _pull_kernel(p_center, p_group, p_loss, p_grad, K: tl.constexpr, N: tl.constexpr, BLOCK_N: tl.constexpr):
    i_sample = tl.program_id(0).to(tl.int64)
    o_n = tl.arange(0, BLOCK_N)
    m_n = o_n < N
    b_group = tl.load(p_group + o_n, mask=m_n, other=-1)
    b_center = tl.load(p_center + i_sample * N + o_n, mask=m_n, other=0.0).to(tl.float32)
    m_n &= (b_group >= 0) & (b_group < K)
    # row i: the components of i's group; what is no component of any group is a group of its own
    is_same = (b_group[:, None] == b_group[None, :]) & m_n[:, None] & m_n[None, :]
    is_same |= o_n[:, None] == o_n[None, :]
    b_least = tl.min(tl.where(is_same, b_center[None, :], float("inf")), axis=1)
    b_most = tl.max(tl.where(is_same, b_center[None, :], float("-inf")), axis=1)
    is_least = is_same & (b_center[None, :] == b_least[:, None])
    is_most = is_same & (b_center[None, :] == b_most[:, None])
    is_first = tl.min(tl.where(is_least, o_n[None, :], BLOCK_N), axis=1) == o_n
    is_last = tl.max(tl.where(is_most, o_n[None, :], -1), axis=1) == o_n
    b_span = b_most - b_least
    # neither minimum nor maximum lets a NaN through
    b_loss = tl.sum(tl.where(is_first, b_span * b_span, 0.0) + 0.0 * b_center, axis=0)
    b_grad = 2.0 * b_span * (is_last.to(tl.float32) - is_first.to(tl.float32))
    tl.store(p_loss + i_sample, b_loss)
    tl.store(p_grad + i_sample * N + o_n, b_grad, mask=o_n < N)


def _push_blocks(num_rows: int, num_positions: int) -> dict[str, int]:
    block_n = max(triton.next_power_of_2(num_rows), _SMALLEST_BLOCK)
    block_t = min(triton.next_power_of_2(num_positions), _BLOCK_ELEMENTS // block_n)
    return {"BLOCK_N": block_n, "BLOCK_T": max(block_t, _SMALLEST_BLOCK)}


def push_fwd(
    masks: Tensor, group: Tensor, target: float, normalize: bool, row_sum_floor: float
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of Eqs. (6) and (7).

    Args:
        masks: [B, n, T] fp32, fp16 or bf16.
        group: [n] integers.
        target, normalize: as in the equation.
        row_sum_floor: smallest sum a row is divided by.
    Returns:
        loss [B] of each sample, and its gradient [B, n, T], both fp32.
    """
    # dots of half-precision tiles raised to fp32 fail to compile for sm_100, so that the copy is made here
    masks, group = masks.float().contiguous(), group.contiguous()
    num_samples, num_rows, num_positions = masks.shape
    loss, grad = empty(masks, num_samples), empty(masks, *masks.shape)
    with device_of(masks):
        _push_kernel[(num_samples,)](
            p_masks=masks,
            p_group=group,
            p_loss=loss,
            p_grad=grad,
            TARGET=target,
            ROW_SUM_FLOOR=row_sum_floor,
            NORMALIZE=normalize,
            N=num_rows,
            T=num_positions,
            **_push_blocks(num_rows, num_positions),
        )
    return loss, grad


def pull_distant_fwd(center: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient of Eq. (5).

    Args:
        center: [B, E] fp32, fp16 or bf16.
        group: [E] integers.
        num_groups: K.
    Returns:
        loss [B] of each sample, and its gradient [B, E], both fp32.
    """
    center, group = center.contiguous(), group.contiguous()
    num_samples, num_components = center.shape
    loss, grad = empty(center, num_samples), empty(center, *center.shape)
    with device_of(center):
        _pull_kernel[(num_samples,)](
            p_center=center,
            p_group=group,
            p_loss=loss,
            p_grad=grad,
            K=num_groups,
            N=num_components,
            BLOCK_N=triton.next_power_of_2(num_components),
        )
    return loss, grad


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on CPU tensors."""
    return not isinstance(_push_kernel, triton.JITFunction)
