"""Pulling and pushing losses (Eqs. 5-7): a sample's loss and its gradient in one pass, one program per sample.

Pushing, with r = rows of M over their sums, G = r r^T, and same the pairs of one group:

    D = same (G - target I)      loss = sum D^2      dloss/dr = 4 D r
    dloss/dM_i = (4 (D r)_i - 4 sum_j D_ij G_ij) / sum_i;  the second term is <dloss/dr_i, r_i>, 0 for a floored sum

Pulling, with c a group's n centers in ascending order, equal ones in the order of the components:

    strategy 0  distant  loss = sum (c_n - c_1)^2                       dloss/dc_n = 2 (c_n - c_1), dloss/dc_1 = -that
    strategy 1  middle   loss = sum (c_n - c_m)^2 + (c_1 - c_m)^2       at c_n, c_1 and c_m, with m the lower median
    strategy 2  all      loss = sum over pairs i < j of (c_i - c_j)^2   dloss/dc_i = 2 sum_j (c_i - c_j)
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

STRATEGIES = ("distant", "middle", "all")
# smallest side of an operand of tl.dot
_SMALLEST_BLOCK = 16
# elements of a tile of masks held by one program; with twice as many, products of 28 or 64 rows spill registers
_BLOCK_ELEMENTS = 1024


@triton.jit
def _tile(p_sample, o_n, o_t, N: tl.constexpr, T: tl.constexpr):
    """Loads rows o_n and columns o_t of a sample's masks, with 0 where nothing exists."""
    m_all = (o_n < N)[:, None] & (o_t < T)[None, :]
    return tl.load(p_sample + o_n[:, None] * T + o_t[None, :], mask=m_all, other=0.0)


@triton.jit
def push_fwd_kernel(
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
    # summed over positions after the loop, because a row sum inside it makes a pass of the compiler fail
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
def _chosen_center(b_center, is_same, is_chosen):
    """Returns for each component the chosen center of its group, 0 if its group has none."""
    return tl.sum(tl.where(is_same & is_chosen[None, :], b_center[None, :], 0.0), axis=1)


@triton.jit
def _ends_pulled(b_center, o_n, m_n, is_same, STRATEGY: tl.constexpr):
    """Returns losses, each at one component of its group, and gradients of the strategies that pull a group's ends."""
    is_equal = b_center[None, :] == b_center[:, None]
    is_before = (b_center[None, :] < b_center[:, None]) | (is_equal & (o_n[None, :] < o_n[:, None]))
    # rank in a stable sort of the group; no center compares as less than a NaN, so that its rank is 0 and the loss NaN
    b_rank = tl.sum((is_same & is_before).to(tl.int32), axis=1)
    b_size = tl.sum(is_same.to(tl.int32), axis=1)
    is_first, is_last = m_n & (b_rank == 0), m_n & (b_rank == b_size - 1)
    b_first, b_last = _chosen_center(b_center, is_same, is_first), _chosen_center(b_center, is_same, is_last)
    if STRATEGY == 0:
        b_up = b_last - b_first
        b_loss = tl.where(is_first, b_up * b_up, 0.0)
        b_grad = tl.where(is_last, b_up, 0.0) - tl.where(is_first, b_up, 0.0)
    else:
        is_middle = m_n & (b_rank == (b_size - 1) // 2)
        b_middle = _chosen_center(b_center, is_same, is_middle)
        b_up, b_down = b_last - b_middle, b_first - b_middle
        b_loss = tl.where(is_first, b_up * b_up + b_down * b_down, 0.0)
        b_grad = tl.where(is_last, b_up, 0.0) + tl.where(is_first, b_down, 0.0)
        b_grad -= tl.where(is_middle, b_up + b_down, 0.0)
    return b_loss, 2.0 * b_grad


@triton.jit
def pull_fwd_kernel(
    p_center,
    p_group,
    p_loss,
    p_grad,
    STRATEGY: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    i_sample = tl.program_id(0).to(tl.int64)
    o_n = tl.arange(0, BLOCK_N)
    m_n = o_n < N
    b_group = tl.load(p_group + o_n, mask=m_n, other=-1)
    # as in the equations: pairs count in every group, ends only in groups 0 to K - 1
    if STRATEGY != 2:
        m_n &= (b_group >= 0) & (b_group < K)
    b_center = tl.load(p_center + i_sample * N + o_n, mask=m_n, other=0.0).to(tl.float32)
    is_same = (b_group[:, None] == b_group[None, :]) & m_n[:, None] & m_n[None, :]
    if STRATEGY == 2:
        b_away = tl.where(is_same, b_center[:, None] - b_center[None, :], 0.0)
        # every pair occurs twice
        b_loss, b_grad = 0.5 * tl.sum(b_away * b_away, axis=1), 2.0 * tl.sum(b_away, axis=1)
    else:
        b_loss, b_grad = _ends_pulled(b_center, o_n, m_n, is_same, STRATEGY)
    tl.store(p_loss + i_sample, tl.sum(b_loss, axis=0))
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
        row_sum_floor: rows are divided by at least this.
    Returns:
        loss [B] of each sample, and its gradient [B, n, T], both fp32.
    """
    # copied to fp32 here, because products of tiles that a kernel converts to fp32 fail to compile for sm_100
    masks, group = masks.float().contiguous(), group.contiguous()
    num_samples, num_rows, num_positions = masks.shape
    loss, grad = empty(masks, num_samples), empty(masks, *masks.shape)
    with device_of(masks):
        push_fwd_kernel[(num_samples,)](
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


def pull_fwd(center: Tensor, group: Tensor, num_groups: int, strategy: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient of Eq. (5), or of one of its variants.

    Args:
        center: [B, E] fp32, fp16 or bf16.
        group: [E] integers.
        num_groups: K.
        strategy: index into STRATEGIES.
    Returns:
        loss [B] of each sample, and its gradient [B, E], both fp32.
    """
    center, group = center.contiguous(), group.contiguous()
    num_samples, num_components = center.shape
    loss, grad = empty(center, num_samples), empty(center, *center.shape)
    with device_of(center):
        pull_fwd_kernel[(num_samples,)](
            p_center=center,
            p_group=group,
            p_loss=loss,
            p_grad=grad,
            STRATEGY=strategy,
            K=num_groups,
            N=num_components,
            BLOCK_N=triton.next_power_of_2(num_components),
        )
    return loss, grad
