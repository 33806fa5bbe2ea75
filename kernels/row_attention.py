"""Attention from one row of each sequence to memory that is key and value at once, forward and backward (Eq. 8).

In the notation of `masked_attention`, for each head, whose query q is as wide as the memory m; c is the caller's scale,
and s_j = (c q . m_j + b_j) / log(2), HIDDEN_SCORE where key j is not visible:

    p = 2^(s - lse)      out = sum_j p_j m_j            lse = log2 sum_j 2^s_j
    dp_j = dout . m_j    ds = p (dp - delta), 0 at hidden keys; delta = sum_j p_j dp_j
    dq = c sum_j ds_j m_j       dm_j = sum over heads of c ds_j q + p_j dout       db = ds, per head

This is attention whose projections of key and value are folded into its query and its result ("weight absorption"):

    (x W_q) (m W_k)^T = ((x W_q) W_k^T) m^T      p (m W_v) = (p m) W_v

One query per head makes no tile for tensor cores: products are multiplied and summed in fp32, whatever the dtype. The
memory is read in blocks, with an online softmax. Nothing is added atomically, so two runs agree bitwise.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import contiguous, device_of, empty, or_unread
from pps_fast.kernels.tiles import _EMPTY_ROW, _LOG2_E, HIDDEN_SCORE, _keys, _load, _sequence, _store

# values of the memory that a program holds at once, so few that no architecture spills registers
_BLOCK_VALUES = 2048


@triton.jit
def _row(p_x, i_row, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Loads a row in fp32, as [1, D]."""
    o_d = tl.arange(0, BLOCK_D)[None, :]
    return tl.load(p_x + i_row * D + o_d, mask=o_d < D, other=0.0).to(tl.float32)


@triton.jit
def _block(p_memory, o_t, num, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Loads rows of a memory in fp32, [rows, D]."""
    return _load(p_memory, 0, D, o_t, num, D, BLOCK_D).to(tl.float32)


@triton.jit
def _biases(p_bias, p_valid, has_bias, num_alike, i_g, o_t, T, num):
    """Returns the bias of a block of keys in units of log 2, 0 without one, and which keys are not padding."""
    b_none, m_visible = _keys(None, p_valid, i_g, i_g // num_alike, o_t, T, num)
    b_bias = tl.load(p_bias + i_g * T + o_t, mask=(o_t < T) & (has_bias != 0), other=0.0)
    return b_bias.to(tl.float32) * _LOG2_E, m_visible


@triton.jit
def _scores(b_q, b_memory, b_bias, m_visible, o_t, T, SCALE: tl.constexpr):
    """Returns scores in units of log 2; keys beyond the last have score -inf."""
    b_s = tl.sum(b_q * b_memory, axis=1) * (SCALE * _LOG2_E) + b_bias
    return tl.where(m_visible, b_s, tl.where(o_t < T, HIDDEN_SCORE, float("-inf")))


@triton.jit(do_not_specialize=["T", "G", "H", "num_alike", "num_masks", "has_bias"])
def row_attention_fwd_kernel(
    p_q, p_memory, p_bias, p_valid, p_start, p_out, p_lse,
    T, G, H, num_alike, num_masks, s_mg, has_bias,
    SCALE: tl.constexpr,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0).to(tl.int64)
    i_g = i_program // H
    i_row = i_program % H * G + i_g
    i_outer, i_first, num = _sequence(p_start, i_g, num_masks, T)
    p_memory += i_outer * s_mg + i_first * D
    b_q = _row(p_q, i_row, D, BLOCK_D)
    b_max = float("-inf")
    b_sum = 0.0
    b_out = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for i_t in range(0, num, BLOCK_T):
        o_t = i_t + tl.arange(0, BLOCK_T)
        b_memory = _block(p_memory, o_t, num, D, BLOCK_D)
        b_bias, m_visible = _biases(p_bias, p_valid, has_bias, num_alike, i_g, o_t, T, num)
        b_s = _scores(b_q, b_memory, b_bias, m_visible, o_t, num, SCALE)
        b_new_max = tl.maximum(b_max, tl.max(b_s, axis=0))
        b_old = tl.exp2(b_max - b_new_max)
        b_p = tl.exp2(b_s - b_new_max)
        b_sum = b_sum * b_old + tl.sum(b_p, axis=0)
        b_out = b_out * b_old + b_p[:, None] * b_memory
        b_max = b_new_max
    o_d = tl.arange(0, BLOCK_D)
    tl.store(p_out + i_row * D + o_d, (tl.sum(b_out, axis=0) / b_sum).to(p_out.dtype.element_ty), mask=o_d < D)
    tl.store(p_lse + i_row, b_max + tl.log2(b_sum))


@triton.jit
def _shares(b_q, b_memory, b_lse, b_bias, m_visible, o_t, T, SCALE: tl.constexpr):
    """Returns the softmax from lse, 0 for keys beyond the last; a row without a visible key averages all keys."""
    b_p = tl.exp2(_scores(b_q, b_memory, b_bias, m_visible, o_t, T, SCALE) - b_lse)
    return tl.where(b_lse < _EMPTY_ROW, 1.0 / T, b_p)


@triton.jit(do_not_specialize=["T", "G", "H", "num_alike", "num_masks", "has_bias"])
def row_attention_bwd_q_kernel(
    p_q, p_memory, p_bias, p_valid, p_start, p_grad, p_lse, p_grad_q, p_delta,
    T, G, H, num_alike, num_masks, s_mg, has_bias,
    SCALE: tl.constexpr,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0).to(tl.int64)
    i_g = i_program // H
    i_row = i_program % H * G + i_g
    i_outer, i_first, num = _sequence(p_start, i_g, num_masks, T)
    p_memory += i_outer * s_mg + i_first * D
    b_q, b_grad, b_lse = _row(p_q, i_row, D, BLOCK_D), _row(p_grad, i_row, D, BLOCK_D), tl.load(p_lse + i_row)
    b_delta = 0.0
    b_out = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    b_all = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for i_t in range(0, num, BLOCK_T):
        o_t = i_t + tl.arange(0, BLOCK_T)
        b_memory = _block(p_memory, o_t, num, D, BLOCK_D)
        b_bias, m_visible = _biases(p_bias, p_valid, has_bias, num_alike, i_g, o_t, T, num)
        b_p = _shares(b_q, b_memory, b_lse, b_bias, m_visible, o_t, num, SCALE)
        b_p = tl.where(m_visible, b_p, 0.0)
        b_pdp = b_p * tl.sum(b_grad * b_memory, axis=1)
        b_delta += tl.sum(b_pdp, axis=0)
        b_out += b_p[:, None] * b_memory
        b_all += b_pdp[:, None] * b_memory
    # sum of ds m, with delta known at the end alone
    b_grad_q = (tl.sum(b_all, axis=0) - b_delta * tl.sum(b_out, axis=0)) * SCALE
    o_d = tl.arange(0, BLOCK_D)
    tl.store(p_grad_q + i_row * D + o_d, b_grad_q.to(p_grad_q.dtype.element_ty), mask=o_d < D)
    tl.store(p_delta + i_row, b_delta)


@triton.jit(do_not_specialize=["T", "G", "H", "num_alike", "num_masks", "has_bias"])
def row_attention_bwd_memory_kernel(
    p_q, p_memory, p_bias, p_valid, p_start, p_grad, p_lse, p_delta, p_grad_memory, p_grad_bias,
    T, G, H, num_alike, num_masks, s_mg, has_bias,
    SCALE: tl.constexpr,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_program, num_blocks = tl.program_id(0).to(tl.int64), tl.cdiv(T, BLOCK_T)
    i_g = i_program // num_blocks
    i_outer, i_first, num = _sequence(p_start, i_g, num_masks, T)
    p_memory += i_outer * s_mg + i_first * D
    o_t = (i_program % num_blocks).to(tl.int32) * BLOCK_T + tl.arange(0, BLOCK_T)
    b_memory = _block(p_memory, o_t, num, D, BLOCK_D)
    b_bias, m_visible = _biases(p_bias, p_valid, has_bias, num_alike, i_g, o_t, T, num)
    b_grad_memory = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for i_h in range(0, H):
        i_row = i_h * G + i_g
        b_q, b_grad = _row(p_q, i_row, D, BLOCK_D), _row(p_grad, i_row, D, BLOCK_D)
        b_p = _shares(b_q, b_memory, tl.load(p_lse + i_row), b_bias, m_visible, o_t, num, SCALE)
        b_dp = tl.sum(b_grad * b_memory, axis=1)
        b_ds = tl.where(m_visible, b_p * (b_dp - tl.load(p_delta + i_row)), 0.0)
        tl.store(p_grad_bias + (i_g * H + i_h) * T + o_t, b_ds, mask=(o_t < T) & (has_bias != 0))
        b_grad_memory += (b_ds * SCALE)[:, None] * b_q + b_p[:, None] * b_grad
    # asked for again and not kept, for which there are too few registers
    i_outer, i_first, num = _sequence(p_start, i_g, num_masks, T)
    _store(p_grad_memory + i_outer * s_mg + i_first * D, b_grad_memory, 0, D, o_t, num, D, BLOCK_D)


def blocks(width: int) -> dict[str, int]:
    """Returns block sizes of a launch."""
    block_d = triton.next_power_of_2(width)
    return {"BLOCK_T": max(_BLOCK_VALUES // block_d, 1), "BLOCK_D": block_d}


def _inputs(
    query: Tensor,
    memory: Tensor,
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    scale: float,
    start: Tensor | None,
) -> dict[str, Any]:
    """Returns the arguments that all kernels share."""
    heads, num, width = query.shape
    longest = memory.shape[1] if start is None or key_valid is None else key_valid.shape[1]
    return {
        "p_q": query.contiguous(),
        "p_memory": memory.contiguous(),
        "p_bias": or_unread(key_bias, query, torch.float32),
        "p_valid": contiguous(key_valid),
        "p_start": start,
        "s_mg": memory.shape[1] * width,
        "num_masks": len(memory),
        "T": longest,
        "G": num,
        "H": heads,
        "has_bias": int(key_bias is not None),
        "num_alike": 1 if key_valid is None else num // len(key_valid),
        "SCALE": scale,
        "D": width,
        **blocks(width),
    }


def row_attention_fwd(
    query: Tensor,
    memory: Tensor,
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    scale: float,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of one row of each sequence, Eq. (8).

    Args:
        query: [H, G, D] for each head, in memory's dtype.
        memory: [G, T, D] keys, which are the values: fp32, fp16 or bf16.
        key_bias: [G, T] of any of these dtypes, or None.
        key_valid: [G, T] bool, or [G / N, T] for sequences of which N in a row have the same keys valid; or None.
        scale: c in the equation.
        start: of `Ragged` rows, where memory is [N, R, D], key_valid [B, n], and sequence g = b * N + m is sample b
            under mask m; or None.
    Returns:
        [H, G, D] in memory's dtype, and its lse [H, G] fp32 in units of log 2, for the backward pass.
    """
    heads, num, width = query.shape
    out, lse = empty(query, heads, num, width, dtype=query.dtype), empty(query, heads, num)
    inputs = _inputs(query, memory, key_bias, key_valid, scale, start)
    with device_of(query):
        row_attention_fwd_kernel[(num * heads,)](**inputs, p_out=out, p_lse=lse)
    return out, lse


def row_attention_bwd(
    results: list[Tensor],
    query: Tensor,
    memory: Tensor,
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    scale: float,
    memory_dtype: torch.dtype,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the attention.

    Args:
        results: gradient of out [H, G, D], and lse of the forward pass.
        query, memory, key_bias, key_valid, scale, start: as in the forward pass.
        memory_dtype: to which the gradient of the memory, summed over heads in fp32, is rounded.
    Returns:
        gradients of query and memory, in their shapes; of the bias for each head [G, H, T] fp32, [0] without a bias.
    """
    heads, num, width = query.shape
    grad_query = empty(query, heads, num, width, dtype=query.dtype)
    grad_memory = empty(query, *memory.shape, dtype=memory_dtype)
    grad_bias = empty(query, *((0,) if key_bias is None else (num, heads, memory.shape[1])))
    inputs = _inputs(query, memory, key_bias, key_valid, scale, start)
    inputs |= {"p_grad": results[0].contiguous(), "p_lse": results[1], "p_delta": empty(query, heads, num)}
    with device_of(query):
        row_attention_bwd_q_kernel[(num * heads,)](**inputs, p_grad_q=grad_query)
        row_attention_bwd_memory_kernel[(num * triton.cdiv(inputs["T"], inputs["BLOCK_T"]),)](
            **inputs, p_grad_memory=grad_memory, p_grad_bias=grad_bias
        )
    return grad_query, grad_memory, grad_bias
