"""Gradient of a linear layer's bias, added to what is there; on the way, the gradient of a ReLU behind the layer.

    g = g [y > 0]  (in place, where the layer has a ReLU)      dbias += sum over rows of g

Rows are summed in two steps, first within each program's blocks of rows and then over programs in a fixed order, so
that two runs agree bitwise.

Letters: R rows of all sequences, C columns, P partial sums.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# rows and columns held by one program at a time
_BLOCK_R, _BLOCK_C = 16, 128
# most programs, four on each of 132 processors; those over the same columns each write their sums to their own row
_MAX_PROGRAMS = 528
# partial sums and columns of a block, and blocks that are read at once
_TOTAL_P, _TOTAL_C, _TOTAL_BLOCKS = 128, 32, 4
# columns of a vector that a masked load or store of any dtype moves at once, at most
_VECTOR = 16


@triton.jit
def _load(p_x, i_block, o_c, num_rows, s_row, C, BLOCK_R: tl.constexpr):
    """Returns a block of rows, 0 beyond the last row and column, with its offsets and mask."""
    o_row = i_block.to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_all, m_all = o_row[:, None] * s_row + o_c[None, :], (o_row < num_rows)[:, None] & (o_c < C)[None, :]
    return tl.load(p_x + o_all, mask=m_all, other=0.0), o_all, m_all


@triton.jit(do_not_specialize=["num_rows", "num_columns"])
def linear_gradient_sum_kernel(
    p_grad, p_result, p_part,
    num_rows, num_columns, s_row, C,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    i_program, num_programs = tl.program_id(0), tl.num_programs(0)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    b_part = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    b_next, o_next, m_next = _load(p_grad, i_program, o_c, num_rows, s_row, C, BLOCK_R)
    b_next_result = b_next
    if p_result is not None:
        b_next_result = _load(p_result, i_program, o_c, num_rows, s_row, C, BLOCK_R)[0]
    for i_block in range(i_program, tl.cdiv(num_rows, BLOCK_R), num_programs):
        b_grad, b_result, o_all, m_all = b_next, b_next_result, o_next, m_next
        # the next rows come while these are added
        b_next, o_next, m_next = _load(p_grad, i_block + num_programs, o_c, num_rows, s_row, C, BLOCK_R)
        if p_result is not None:
            b_next_result = _load(p_result, i_block + num_programs, o_c, num_rows, s_row, C, BLOCK_R)[0]
            b_grad = tl.where(b_result > 0, b_grad, 0.0).to(b_grad.dtype)
            tl.store(p_grad + o_all, b_grad, mask=m_all)
        # what lies behind the last column may be any number
        b_part += tl.where((o_c < num_columns)[None, :], b_grad.to(tl.float32), 0.0)
    tl.store(p_part + i_program.to(tl.int64) * C + o_c, tl.sum(b_part, axis=0), mask=o_c < C)


@triton.jit(do_not_specialize=["num_parts", "C"])
def linear_gradient_total_kernel(
    p_part, p_first, p_second, p_third,
    num_parts, s_part, C,
    BLOCKS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    i_target = tl.program_id(0)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    b_total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for i_part in range(0, num_parts, BLOCKS * BLOCK_P):
        # several loads are under way at once; those beyond the last part are none
        for i_block in tl.static_range(BLOCKS):
            o_part = i_part + i_block * BLOCK_P + tl.arange(0, BLOCK_P)
            o_all = (o_part[:, None] * tl.num_programs(0) + i_target) * s_part + o_c[None, :]
            b_total += tl.load(p_part + o_all, mask=(o_part < num_parts)[:, None] & (o_c < s_part)[None, :], other=0.0)
    b_sum = tl.sum(b_total, axis=0)
    if i_target == 0:
        tl.store(p_first + o_c, tl.load(p_first + o_c, mask=o_c < C, other=0.0) + b_sum, mask=o_c < C)
    elif i_target == 1:
        tl.store(p_second + o_c, tl.load(p_second + o_c, mask=o_c < C, other=0.0) + b_sum, mask=o_c < C)
    else:
        tl.store(p_third + o_c, tl.load(p_third + o_c, mask=o_c < C, other=0.0) + b_sum, mask=o_c < C)


def add_totals(part: Tensor, targets: list[Tensor]) -> None:
    """Adds sums of parts to up to three targets in one launch.

    Args:
        part: [P, number of targets, C] fp32, or with more columns, which lead nowhere.
        targets: [C] fp32, contiguous, added to in place.
    """
    (num_parts, num_targets, length), width = part.shape, targets[0].numel()
    first, second, third = targets + targets[:1] * (3 - num_targets)
    linear_gradient_total_kernel[(num_targets, triton.cdiv(width, _TOTAL_C))](
        p_part=part, p_first=first, p_second=second, p_third=third, num_parts=num_parts, s_part=length, C=width,
        BLOCKS=_TOTAL_BLOCKS, BLOCK_P=_TOTAL_P, BLOCK_C=_TOTAL_C, num_warps=8,
    )  # fmt: skip


def programs(num_rows: int, width: int) -> tuple[int, int]:
    """Returns the grid: how many programs share the rows, and how many the columns."""
    across = triton.cdiv(width, _BLOCK_C)
    return min(triton.cdiv(num_rows, _BLOCK_R), max(_MAX_PROGRAMS // across, 1)), across


def _readable(x: Tensor) -> int:
    """Returns C, or the next multiple of a vector where memory reaches so far, so that no mask cuts a vector."""
    (num_rows, width), length = x.shape, x.stride(0)
    rounded = triton.cdiv(width, _VECTOR) * _VECTOR
    end = x.storage_offset() + (num_rows - 1) * length + rounded
    return rounded if rounded <= length and end * x.element_size() <= x.untyped_storage().nbytes() else width


def linear_gradient(grad: Tensor, result: Tensor | None, bias: Tensor) -> None:
    """Adds the gradient of a linear layer's bias to `bias`.

    Args:
        grad: [R, C] gradient of the layer's result, whose rows may be farther apart than they are long; with `result`,
            set to 0 in place where that is 0.
        result: [R, C] the layer's result behind its ReLU, with the strides of `grad`; None for a layer without one.
        bias: [C] fp32, contiguous; or [n, C / n] of up to three layers side by side, of which each is contiguous. It is
            added to in place.
    """
    targets = [bias] if bias.dim() == 1 else list(bias.unbind())
    is_exact = result is not None or len(targets) > 1
    num_rows, width = len(grad), grad.shape[1] if is_exact else _readable(grad)
    grid = programs(num_rows, width)
    part = empty(grad, grid[0], len(targets), width // len(targets))
    with device_of(grad):
        linear_gradient_sum_kernel[grid](
            p_grad=grad, p_result=result, p_part=part, num_rows=num_rows, num_columns=grad.shape[1],
            s_row=grad.stride(0), C=width, BLOCK_R=_BLOCK_R, BLOCK_C=_BLOCK_C, num_warps=4,
        )  # fmt: skip
        add_totals(part, targets)
