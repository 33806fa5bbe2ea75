"""Pulling and pushing losses (Eqs. 5-7): a sample's loss and its gradient in one pass, one program per sample.

Pushing, with r the rows in one of three forms, G = r r^T, and same the pairs of one group:

    D = same (G - target I)      loss = sum D^2      dloss/dr = 4 D r      a_i = 4 sum_j D_ij G_ij = <dloss/dr_i, r_i>
    form 0  plain      r = x                    dloss/dx = dloss/dr
    form 1  sums       r_i = x_i / sum x_i      dloss/dx_i = (dloss/dr_i - a_i) / sum x_i;  a_i = 0 for a floored sum
    form 2  exponents  r_i = softmax(x_i)       dloss/dx_i = (dloss/dr_i - a_i) r_i

Rows are brought to their form before they are multiplied, because products of values below 1e-19 are 0.

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
FORMS = ("plain", "sums", "exponents")
# positions: the smallest side of an operand of tl.dot; rows: one size for proposals and for components
_SMALLEST_T, _SMALLEST_N = 16, 32
# elements of a tile of masks held by one program; with twice as many, products of 28 or 64 rows spill registers
_BLOCK_ELEMENTS = 1024


@triton.jit
def _tile(p_sample, o_n, o_t, N, T: tl.constexpr, FORM: tl.constexpr):
    """Loads rows o_n and columns o_t of a sample, with 0 where nothing exists, -inf of exponents."""
    m_all = (o_n < N)[:, None] & (o_t < T)[None, :]
    return tl.load(p_sample + o_n[:, None] * T + o_t[None, :], mask=m_all, other=float("-inf") if FORM == 2 else 0.0)


@triton.jit
def _peaks(p_sample, o_n, N, T: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr):
    """Returns the largest exponent of each row, 0 for a row that does not exist."""
    b_top = tl.full([BLOCK_N, BLOCK_T], float("-inf"), dtype=tl.float32)
    for i_t in range(0, T, BLOCK_T):
        b_top = tl.maximum(b_top, _tile(p_sample, o_n, i_t + tl.arange(0, BLOCK_T), N, T, 2))
    return tl.where(o_n < N, tl.max(b_top, axis=1), 0.0)


@triton.jit
def _normalized(b_tile, b_peak, b_inverse, FORM: tl.constexpr):
    """Returns a tile of rows in their form; b_inverse is 1 / sum."""
    if FORM == 2:
        return tl.exp(b_tile - b_peak[:, None]) * b_inverse[:, None]
    elif FORM == 1:
        return b_tile * b_inverse[:, None]
    else:
        return b_tile


@triton.jit(do_not_specialize=["N"])
def push_fwd_kernel(
    p_rows,
    p_group,
    p_loss,
    p_grad,
    N,
    TARGET: tl.constexpr,
    ROW_SUM_FLOOR: tl.constexpr,
    FORM: tl.constexpr,
    T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    i_sample = tl.program_id(0).to(tl.int64)
    p_sample = p_rows + i_sample * N * T
    o_n = tl.arange(0, BLOCK_N)
    m_n = o_n < N
    b_peak = tl.zeros([BLOCK_N], dtype=tl.float32)
    if FORM == 2:
        b_peak = _peaks(p_sample, o_n, N, T, BLOCK_N, BLOCK_T)
    # summed over positions after the loop, because a row sum inside it makes a pass of the compiler fail
    b_total = tl.zeros([BLOCK_N, BLOCK_T], dtype=tl.float32)
    if FORM != 0:
        for i_t in range(0, T, BLOCK_T):
            b_tile = _tile(p_sample, o_n, i_t + tl.arange(0, BLOCK_T), N, T, FORM)
            b_total += tl.exp(b_tile - b_peak[:, None]) if FORM == 2 else b_tile
    b_sum = tl.sum(b_total, axis=1)
    b_inverse = 1.0 / tl.maximum(b_sum, ROW_SUM_FLOOR)
    b_gram = tl.zeros([BLOCK_N, BLOCK_N], dtype=tl.float32)
    for i_t in range(0, T, BLOCK_T):
        b_row = _normalized(_tile(p_sample, o_n, i_t + tl.arange(0, BLOCK_T), N, T, FORM), b_peak, b_inverse, FORM)
        b_gram = tl.dot(b_row, tl.trans(b_row), b_gram, input_precision="ieee")

    b_group = tl.load(p_group + o_n, mask=m_n, other=0)
    is_same = (b_group[:, None] == b_group[None, :]) & m_n[:, None] & m_n[None, :]
    b_target = tl.where(o_n[:, None] == o_n[None, :], TARGET, 0.0)
    b_distance = tl.where(is_same, b_gram - b_target, 0.0)
    tl.store(p_loss + i_sample, tl.sum(tl.sum(b_distance * b_distance, axis=1), axis=0))

    b_distance *= 4.0
    b_along = tl.where(b_sum >= ROW_SUM_FLOOR, tl.sum(b_distance * b_gram, axis=1), 0.0)
    for i_t in range(0, T, BLOCK_T):
        o_t = i_t + tl.arange(0, BLOCK_T)
        b_row = _normalized(_tile(p_sample, o_n, o_t, N, T, FORM), b_peak, b_inverse, FORM)
        b_grad = tl.dot(b_distance, b_row, input_precision="ieee")
        if FORM != 0:
            b_grad = (b_grad - b_along[:, None]) * (b_row if FORM == 2 else b_inverse[:, None])
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
    """Returns block sizes, warps and stages of a launch, chosen so that no architecture spills registers."""
    block_n = max(triton.next_power_of_2(num_rows), _SMALLEST_N)
    block_t = min(triton.next_power_of_2(num_positions), _BLOCK_ELEMENTS // block_n)
    # with 4 warps, products of 64 rows spill registers
    num_warps = 8 if block_n > 32 else 4
    return {
        "BLOCK_N": block_n,
        "BLOCK_T": max(block_t, _SMALLEST_T),
        "num_warps": num_warps,
        "num_stages": 1,
    }


def push_fwd(rows: Tensor, group: Tensor, target: float, form: int, row_sum_floor: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient of Eqs. (6) and (7).

    Args:
        rows: [B, n, T] fp32, fp16 or bf16; masks, or their exponents.
        group: [n] integers.
        target: as in the equation.
        form: index into FORMS, what is made of the rows.
        row_sum_floor: rows are divided by at least this.
    Returns:
        loss [B] of each sample, and the gradient of rows [B, n, T], both fp32.
    """
    # copied to fp32 here, because products of tiles that a kernel converts to fp32 fail to compile for sm_100
    rows, group = rows.float().contiguous(), group.contiguous()
    num_samples, num_rows, num_positions = rows.shape
    loss, grad = empty(rows, num_samples), empty(rows, *rows.shape)
    with device_of(rows):
        push_fwd_kernel[(num_samples,)](
            p_rows=rows,
            p_group=group,
            p_loss=loss,
            p_grad=grad,
            TARGET=target,
            ROW_SUM_FLOOR=row_sum_floor,
            FORM=form,
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
