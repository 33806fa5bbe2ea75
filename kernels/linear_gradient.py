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
_BLOCK_R, _BLOCK_C = 32, 128
# most programs over the rows, each of which writes its sums to its own row
_MAX_PROGRAMS = 128
# partial sums and columns that are added up at once
_TOTAL_P, _TOTAL_C = 64, 32


@triton.jit(do_not_specialize=["num_rows"])
def linear_gradient_sum_kernel(
    p_grad, p_result, p_part,
    num_rows, C,
    BLOCKS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    b_part = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for i_block in range(BLOCKS):
        o_row = (i_program * BLOCKS + i_block).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
        o_all, m_all = o_row[:, None] * C + o_c[None, :], (o_row < num_rows)[:, None] & (o_c < C)[None, :]
        b_grad = tl.load(p_grad + o_all, mask=m_all, other=0.0)
        if p_result is not None:
            b_result = tl.load(p_result + o_all, mask=m_all, other=0.0).to(tl.float32)
            b_grad = tl.where(b_result > 0, b_grad, 0.0).to(b_grad.dtype)
            tl.store(p_grad + o_all, b_grad, mask=m_all)
        b_part += b_grad.to(tl.float32)
    tl.store(p_part + i_program.to(tl.int64) * C + o_c, tl.sum(b_part, axis=0), mask=o_c < C)


@triton.jit(do_not_specialize=["num_parts"])
def linear_gradient_total_kernel(
    p_part, p_first, p_second, p_third,
    num_parts, C,
    BLOCKS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    i_target = tl.program_id(0)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    b_total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for i_block in range(BLOCKS):
        o_part = i_block * BLOCK_P + tl.arange(0, BLOCK_P)
        o_all = (o_part[:, None] * tl.num_programs(0) + i_target) * C + o_c[None, :]
        b_total += tl.load(p_part + o_all, mask=(o_part < num_parts)[:, None] & (o_c < C)[None, :], other=0.0)
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
        part: [P, number of targets, C] fp32.
        targets: [C] fp32, contiguous, added to in place.
    """
    num_parts, num_targets, width = part.shape
    first, second, third = targets + targets[:1] * (3 - num_targets)
    # a power of two, so that few numbers of parts need a compilation of their own
    number = triton.next_power_of_2(triton.cdiv(num_parts, _TOTAL_P))
    linear_gradient_total_kernel[(num_targets, triton.cdiv(width, _TOTAL_C))](
        p_part=part, p_first=first, p_second=second, p_third=third, num_parts=num_parts, C=width,
        BLOCKS=number, BLOCK_P=_TOTAL_P, BLOCK_C=_TOTAL_C, num_warps=4,
    )  # fmt: skip


def programs(num_rows: int) -> tuple[int, int]:
    """Returns how many programs sum the rows, and how many blocks of rows each of them sums."""
    num_blocks = triton.cdiv(num_rows, _BLOCK_R)
    # a power of two, so that few numbers of rows need a compilation of their own
    per_program = triton.next_power_of_2(triton.cdiv(num_blocks, _MAX_PROGRAMS))
    return triton.cdiv(num_blocks, per_program), per_program


def linear_gradient(grad: Tensor, result: Tensor | None, bias: Tensor) -> None:
    """Adds the gradient of a linear layer's bias to `bias`.

    Args:
        grad: [R, C] gradient of the layer's result, contiguous; with `result`, set to 0 in place where that is 0.
        result: [R, C] the layer's result behind its ReLU, contiguous; None for a layer without one.
        bias: [C] fp32, contiguous, added to in place.
    """
    num_rows, width = grad.shape
    number, per_program = programs(num_rows)
    part = empty(grad, number, 1, width)
    with device_of(grad):
        linear_gradient_sum_kernel[(number, triton.cdiv(width, _BLOCK_C))](
            p_grad=grad, p_result=result, p_part=part, num_rows=num_rows, C=width,
            BLOCKS=per_program, BLOCK_R=_BLOCK_R, BLOCK_C=_BLOCK_C, num_warps=4,
        )  # fmt: skip
        add_totals(part, [bias])
