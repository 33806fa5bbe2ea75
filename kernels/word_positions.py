"""Positions of embedded words, and q_cls in the place of one row of each sentence, forward and backward.

    y[b, p] = (c if p = s[b] else x[b, p]) + table[p],  s the slot of q_cls
    dx = dy but for 0 at s[b]       dc += sum over b of dy[b, s[b]]

Rows are summed in a fixed order, so that two runs agree bitwise.

Letters: B sentences, n slots, R slots of all sentences, D values of a slot.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty, or_unread

# slots and columns held by one program, which takes all slots of its columns in the backward pass
_BLOCK_R, _BLOCK_D = 64, 32


@triton.jit
def _slots(i_block, p_num_words, has_cls, num_rows, N, D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Returns offsets and masks of a block: slots and columns, both together, and which are q_cls."""
    # the interpreter's loops count in numbers of Python
    o_row = tl.cast(i_block, tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_row = o_row < num_rows
    o_slot = o_row % N
    m_cls = o_slot == tl.load(p_num_words + o_row // N, mask=m_row & (has_cls != 0), other=-2) + 1
    return o_slot, o_d, o_row[:, None] * D + o_d[None, :], m_row[:, None] & (o_d < D)[None, :], m_cls[:, None]


@triton.jit(do_not_specialize=["has_cls", "num_rows", "N"])
def word_positions_fwd_kernel(
    p_x, p_cls, p_num_words, p_table, p_out,
    has_cls, num_rows, N,
    D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    o_slot, o_d, o_all, m_all, m_cls = _slots(tl.program_id(0), p_num_words, has_cls, num_rows, N, D, BLOCK_R, BLOCK_D)
    b_x = tl.load(p_x + o_all, mask=m_all, other=0.0).to(tl.float32)
    b_x = tl.where(m_cls, tl.load(p_cls + o_d, mask=(o_d < D) & (has_cls != 0), other=0.0)[None, :], b_x)
    b_x += tl.load(p_table + o_slot[:, None] * D + o_d[None, :], mask=m_all, other=0.0)
    tl.store(p_out + o_all, b_x.to(p_out.dtype.element_ty), mask=m_all)


@triton.jit(do_not_specialize=["num_rows", "N"])
def word_positions_bwd_kernel(
    p_grad, p_num_words, p_grad_x, p_cls_sum,
    num_rows, N,
    D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    b_sum = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    for i_block in range(0, tl.cdiv(num_rows, BLOCK_R)):
        _, _, o_all, m_all, m_cls = _slots(i_block, p_num_words, 1, num_rows, N, D, BLOCK_R, BLOCK_D)
        b_grad = tl.load(p_grad + o_all, mask=m_all, other=0.0).to(tl.float32)
        b_sum += tl.where(m_cls, b_grad, 0.0)
        tl.store(p_grad_x + o_all, tl.where(m_cls, 0.0, b_grad).to(p_grad_x.dtype.element_ty), mask=m_all)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    b_before = tl.load(p_cls_sum + o_d, mask=o_d < D, other=0.0)
    tl.store(p_cls_sum + o_d, b_before + tl.sum(b_sum, axis=0), mask=o_d < D)


def _launch(kernel: Any, num_programs: int, x: Tensor, num_words: Tensor | None, **arguments: Any) -> None:
    """Runs a kernel over blocks of slots and columns; `arguments` are its further arguments."""
    num, length, width = x.shape
    with device_of(x):
        kernel[(num_programs, triton.cdiv(width, _BLOCK_D))](
            p_num_words=or_unread(num_words, x, torch.int64), num_rows=num * length, N=length, D=width,
            BLOCK_R=_BLOCK_R, BLOCK_D=_BLOCK_D, **arguments,
        )  # fmt: skip


def word_positions_fwd(x: Tensor, word_cls: Tensor | None, num_words: Tensor | None, table: Tensor) -> Tensor:
    """Puts q_cls behind the words and adds positions.

    Args:
        x: [B, n, D] embedded words, fp32, fp16 or bf16.
        word_cls: [D] fp32, contiguous, for slot num_words + 1; None for none.
        num_words: [B] int64, with word_cls.
        table: [n, D] or longer, fp32, contiguous.
    Returns:
        [B, n, D] in x's dtype.
    """
    x, has_cls = x.contiguous(), int(word_cls is not None)
    out, num_programs = empty(x, *x.shape, dtype=x.dtype), triton.cdiv(x.shape[0] * x.shape[1], _BLOCK_R)
    pointers = {"p_x": x, "p_cls": or_unread(word_cls, x, torch.float32), "p_table": table, "p_out": out}
    _launch(word_positions_fwd_kernel, num_programs, x, num_words, **pointers, has_cls=has_cls)
    return out


def word_positions_bwd(sums: Tensor, grad: Tensor, num_words: Tensor) -> Tensor:
    """Gradient of the embedded words, with that of q_cls added to what is there.

    Args:
        sums: [D] gradient of q_cls, fp32, contiguous, added to in place.
        grad: [B, n, D] of the result.
        num_words: as in the forward pass.
    Returns:
        [B, n, D] in grad's dtype.
    """
    grad = grad.contiguous()
    grad_x = empty(grad, *grad.shape, dtype=grad.dtype)
    _launch(word_positions_bwd_kernel, 1, grad, num_words, p_grad=grad, p_grad_x=grad_x, p_cls_sum=sums)
    return grad_x
