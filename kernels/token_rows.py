"""Rows of a product's input with a learned token before or behind them, dropped, in the dtype that the product reads.

    row[r] = keep scale token                    r = t, the token's row, 0 or the one behind x
           = u                                   rows of x that are hidden, replaced by a learned row
           = keep scale x[r - 1] or x[r]         other rows of x, behind the token or before it
           = 0                                   rows beyond

    dtoken += sum over sequences of keep scale drow[t]       du += sum over hidden rows of drow

keep and scale are those of `dropout.py`, and keep is computed again for the gradient. Rows are summed in a fixed order,
so that two runs agree bitwise.

Letters: G sequences, M rows of x in each, n rows of the result, R rows of all sequences, D values of a row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.dropout import _STEP, _hashed, _kept_values, dropping
from pps_fast.kernels.launch import device_of, empty, or_unread

# values held by one program
_BLOCK_V = 2048
# rows and columns of a gradient held by one program at a time
_BLOCK_R, _BLOCK_D = 64, 32


@triton.jit(do_not_specialize=["M", "N", "token_row", "has_hidden", "site"])
def token_rows_fwd_kernel(
    p_x, p_token, p_hidden, p_is_hidden, p_dropout_key, p_out,
    M, N, token_row, has_hidden, site,
    SCALE: tl.constexpr, THRESHOLD: tl.constexpr, D: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    i_sequence = tl.program_id(1).to(tl.int64)
    o_value = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    o_row, o_d = o_value // D, o_value % D
    m_value, m_token = o_row < N, o_row == token_row
    # rows behind a token in front come from one row before
    o_x = tl.where(token_row == 0, o_row - 1, o_row)
    m_x = m_value & (o_x >= 0) & (o_x < M)
    b_x = tl.load(p_x + (i_sequence * M + o_x) * D + o_d, mask=m_x, other=0.0).to(tl.float32)
    b_x = tl.where(m_token, tl.load(p_token + o_d, mask=m_value & m_token, other=0.0), b_x)
    if p_dropout_key is not None:
        b_dropout_key = _hashed(tl.load(p_dropout_key + i_sequence) ^ (site * _STEP))
        b_x = tl.where(_kept_values(b_dropout_key, o_value, THRESHOLD), b_x * SCALE, 0.0)
    if has_hidden != 0:
        m_hidden = tl.load(p_is_hidden + i_sequence * M + o_x, mask=m_x, other=0) != 0
        b_x = tl.where(m_hidden, tl.load(p_hidden + o_d, mask=m_hidden, other=0.0), b_x)
    tl.store(p_out + i_sequence * N * D + o_value, b_x.to(p_out.dtype.element_ty), mask=m_value)


@triton.jit(do_not_specialize=["num_rows", "M", "N", "token_row", "first_row", "has_hidden", "site"])
def token_rows_bwd_kernel(
    p_grad, p_is_hidden, p_dropout_key, p_token_sum, p_hidden_sum,
    num_rows, M, N, token_row, first_row, has_hidden, site,
    SCALE: tl.constexpr, THRESHOLD: tl.constexpr, D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    o_d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_d = o_d < D
    b_token = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    b_hidden = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    for i_row in range(0, num_rows, BLOCK_R):
        o_all = i_row + tl.arange(0, BLOCK_R)
        i_sequence, o_row, m_all = o_all // N, o_all % N + first_row, o_all < num_rows
        b_grad = tl.load(
            p_grad + o_all.to(tl.int64)[:, None] * D + o_d[None, :], mask=m_all[:, None] & m_d[None, :], other=0.0
        ).to(tl.float32)
        m_token = (o_row == token_row)[:, None]
        if p_dropout_key is not None:
            b_dropout_key = _hashed(tl.load(p_dropout_key + i_sequence, mask=m_all, other=0) ^ (site * _STEP))
            b_kept = _kept_values(b_dropout_key[:, None], o_row[:, None] * D + o_d[None, :], THRESHOLD)
            b_token += tl.where(m_token & b_kept, b_grad * SCALE, 0.0)
        else:
            b_token += tl.where(m_token, b_grad, 0.0)
        if has_hidden != 0:
            o_x = tl.where(token_row == 0, o_row - 1, o_row)
            m_x = m_all & (o_x >= 0) & (o_x < M)
            m_hidden = tl.load(p_is_hidden + i_sequence.to(tl.int64) * M + o_x, mask=m_x, other=0) != 0
            b_hidden += tl.where(m_hidden[:, None], b_grad, 0.0)
    tl.store(p_token_sum + o_d, tl.load(p_token_sum + o_d, mask=m_d, other=0.0) + tl.sum(b_token, axis=0), mask=m_d)
    if has_hidden != 0:
        b_before = tl.load(p_hidden_sum + o_d, mask=m_d, other=0.0)
        tl.store(p_hidden_sum + o_d, b_before + tl.sum(b_hidden, axis=0), mask=m_d)


def token_rows_fwd(
    x: Tensor,
    tokens: list[Tensor],
    is_hidden: Tensor | None,
    dropout_key: Tensor | None,
    dropout: list[int],
    rows: list[int],
    dtype: torch.dtype,
) -> Tensor:
    """Rows with a token, dropped, and with hidden ones replaced.

    Args:
        x: [G, M, D], fp32, fp16 or bf16.
        tokens: the token and, with is_hidden, what replaces hidden rows: [D] fp32, contiguous.
        is_hidden: [G, M] bool, or None.
        dropout_key: [G] int32 dropout key of each sequence, or None for no dropout.
        dropout: index of the dropout site in the model, and how many of 65,536 hash levels are dropped.
        rows: the token's row, 0 or M, and n.
        dtype: of the result.
    Returns:
        [G, n, D].
    """
    x, (num, length, width), (token_row, num_rows) = x.contiguous(), x.shape, rows
    out = empty(x, num, num_rows, width, dtype=dtype)
    with device_of(x):
        token_rows_fwd_kernel[(triton.cdiv(num_rows * width, _BLOCK_V), num)](
            p_x=x, p_token=tokens[0], p_hidden=tokens[-1], p_is_hidden=or_unread(is_hidden, x, torch.bool), p_out=out,
            M=length, N=num_rows, token_row=token_row, has_hidden=int(is_hidden is not None), D=width, BLOCK_V=_BLOCK_V,
            **dropping(dropout_key, dropout),
        )  # fmt: skip
    return out


def token_rows_bwd(
    sums: list[Tensor],
    grad: Tensor,
    is_hidden: Tensor | None,
    dropout_key: Tensor | None,
    dropout: list[int],
    token_row: int,
    first_row: int,
) -> None:
    """Adds the gradients of the tokens to what is there.

    Args:
        sums: gradients of the tokens, [D] fp32, contiguous, added to in place.
        grad: [G, n', D] gradient of some neighboring rows of each sequence, the token's among them.
        is_hidden, dropout_key, dropout, token_row: as in the forward pass.
        first_row: position of the first of those rows.
    """
    grad, (num, num_rows, width) = grad.contiguous(), grad.shape
    with device_of(grad):
        token_rows_bwd_kernel[(triton.cdiv(width, _BLOCK_D),)](
            p_grad=grad, p_is_hidden=or_unread(is_hidden, grad, torch.bool), p_token_sum=sums[0], p_hidden_sum=sums[-1],
            num_rows=num * num_rows, M=0 if is_hidden is None else is_hidden.shape[1], N=num_rows,
            token_row=token_row, first_row=first_row, has_hidden=int(is_hidden is not None), D=width, BLOCK_R=_BLOCK_R,
            BLOCK_D=_BLOCK_D, **dropping(dropout_key, dropout),
        )  # fmt: skip
