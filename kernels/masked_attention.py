"""Mask-conditioned attention, forward and backward (Eq. 8).

With s_ij = (q_i . k_j / sqrt(D) + b_j) / log(2), b the log of the mask, HIDDEN_SCORE where key j is not visible to i:

    p = 2^(s - lse)      out = p v             lse_i = log2 sum_j 2^s_ij
    dv = p^T dout        dp = dout v^T         ds = p (dp - delta), 0 at hidden keys; delta_i = sum_j p_ij dp_ij
    dq = ds k / sqrt(D)  dk = ds^T q / sqrt(D) db_j = sum_i ds_ij, per head

Where query, key and value are parts of a packed projection, the gradient of that layer's bias is computed on the way:
the sums of dq and of dout over all rows. Rows of p sum to 1, so that those of dv sum to the same as those of dout; rows
of ds sum to 0, so that dk sums to 0: no softmax sees what the bias adds to all keys.

A row without a visible key has lse = HIDDEN_SCORE up to rounding and p = 1 / T. Where one tile holds all queries and
keys, the backward pass is one program per head. Larger inputs are cut into blocks, with an online softmax and two
backward kernels that write different results. Nothing is added atomically, so two runs agree bitwise.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty
from pps_fast.kernels.linear_gradient import add_totals, linear_gradient
from pps_fast.kernels.tiles import (
    _EMPTY_ROW,
    _dot,
    _first_row,
    _inputs,
    _keys,
    _like_heads,
    _load,
    _scores,
    _sequence,
    _shares,
    _store,
    _store_bias,
    _store_sum,
    add_sums,
)

_SMALLEST_BLOCK = 32  # queries and keys: one for sentences of up to 30 words, which would else need two compilations


@triton.jit(do_not_specialize=["Q", "T", "num_alike", "num_masks", "num_rows"])
def masked_attention_fwd_kernel(
    p_q, p_k, p_v, p_bias, p_valid, p_start_q, p_start_t, p_out, p_lse,
    s_qg, s_qh, s_qn, s_kg, s_kh, s_kn, s_vg, s_vh, s_vn,
    Q, T, num_alike, num_masks, num_rows,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr, NUM_Q: tl.constexpr, NUM_T: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0).to(tl.int64)
    i_pair, i_q = i_program // NUM_Q, (i_program % NUM_Q).to(tl.int32)
    i_g, i_h = i_pair // H, i_pair % H
    i_outer_q, i_first_q, num_q = _sequence(p_start_q, i_g, num_masks, Q)
    i_outer_t, i_first_t, num_t = _sequence(p_start_t, i_g, num_masks, T)
    o_q = i_q * BLOCK_Q + tl.arange(0, BLOCK_Q)
    b_q = _load(p_q, i_outer_q * s_qg + i_first_q * s_qn + i_h * s_qh, s_qn, o_q, num_q, D, BLOCK_D)
    b_max = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_Q], tl.float32)
    b_out = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    for i_t in range(NUM_T):
        if CAUSAL and NUM_T > 1:
            # rows without a visible key average all keys, and so need blocks of the future too
            is_needed = (i_t * BLOCK_T < (i_q + 1) * BLOCK_Q) | (tl.min(b_max, axis=0) < _EMPTY_ROW)
        else:
            is_needed = True
        if is_needed:
            o_t = i_t * BLOCK_T + tl.arange(0, BLOCK_T)
            b_k = _load(p_k, i_outer_t * s_kg + i_first_t * s_kn + i_h * s_kh, s_kn, o_t, num_t, D, BLOCK_D)
            b_v = _load(p_v, i_outer_t * s_vg + i_first_t * s_vn + i_h * s_vh, s_vn, o_t, num_t, D, BLOCK_D)
            b_bias, m_visible = _keys(p_bias, p_valid, i_g, i_g // num_alike, o_t, T, num_t)
            b_s, m_seen = _scores(b_q, b_k, b_bias, m_visible, o_q, o_t, num_t, SCALE, CAUSAL, DOT)
            b_new_max = tl.maximum(b_max, tl.max(b_s, axis=1))
            b_old = tl.exp2(b_max - b_new_max)
            b_p = tl.exp2(b_s - b_new_max[:, None])
            b_sum = b_sum * b_old + tl.sum(b_p, axis=1)
            b_out = b_out * b_old[:, None] + _dot(b_p.to(b_v.dtype), b_v, DOT)
            b_max = b_new_max
    tl.store(p_lse + i_pair * Q + o_q, b_max + tl.log2(b_sum), mask=o_q < num_q)
    o_out = (_first_row(p_start_q, i_outer_q, i_first_q, Q, num_rows) * H + i_h) * D
    _store(p_out, b_out / b_sum[:, None], o_out, H * D, o_q, num_q, D, BLOCK_D)


@triton.jit(do_not_specialize=["Q", "T", "num_alike", "num_masks", "num_rows", "adds"])
def masked_attention_bwd_tile_kernel(
    p_q, p_k, p_v, p_bias, p_valid, p_start_q, p_start_t, p_grad, p_lse,
    p_grad_q, p_grad_k, p_grad_v, p_grad_bias, p_part,
    s_qg, s_qh, s_qn, s_kg, s_kh, s_kn, s_vg, s_vh, s_vn, s_dqg, s_dqn, s_dkg, s_dkn,
    Q, T, num_alike, num_masks, num_rows, adds,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    i_pair = tl.program_id(0).to(tl.int64)
    i_g, i_h = i_pair // H, i_pair % H
    i_outer_q, i_first_q, num_q = _sequence(p_start_q, i_g, num_masks, Q)
    i_outer_t, i_first_t, num_t = _sequence(p_start_t, i_g, num_masks, T)
    o_out = (_first_row(p_start_q, i_outer_q, i_first_q, Q, num_rows) * H + i_h) * D
    o_q, o_t = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_T)
    b_q = _load(p_q, i_outer_q * s_qg + i_first_q * s_qn + i_h * s_qh, s_qn, o_q, num_q, D, BLOCK_D)
    b_k = _load(p_k, i_outer_t * s_kg + i_first_t * s_kn + i_h * s_kh, s_kn, o_t, num_t, D, BLOCK_D)
    b_v = _load(p_v, i_outer_t * s_vg + i_first_t * s_vn + i_h * s_vh, s_vn, o_t, num_t, D, BLOCK_D)
    b_grad = _load(p_grad, o_out, H * D, o_q, num_q, D, BLOCK_D)
    o_part = (i_g * 2 * H + i_h) * D  # [G, 2, H, D]
    if p_part is not None:
        _store_sum(p_part, b_grad.to(tl.float32), o_part + H * D, D, BLOCK_D)
    b_lse = tl.load(p_lse + i_pair * Q + o_q, mask=o_q < num_q, other=float("inf"))
    b_bias, m_visible = _keys(p_bias, p_valid, i_g, i_g // num_alike, o_t, T, num_t)
    b_s, m_seen = _scores(b_q, b_k, b_bias, m_visible, o_q, o_t, num_t, SCALE, CAUSAL, DOT)
    b_p = _shares(b_s, b_lse, num_t)
    b_grad_v = _dot(tl.trans(b_p.to(b_grad.dtype)), b_grad, DOT)
    o_grad_t = i_outer_t * s_dkg + i_first_t * s_dkn + i_h * D
    _store(p_grad_v, b_grad_v, o_grad_t, s_dkn, o_t, num_t, D, BLOCK_D)
    b_dp = _dot(b_grad, tl.trans(b_v), DOT)
    b_ds = tl.where(m_seen, b_p * (b_dp - tl.sum(b_p * b_dp, axis=1)[:, None]), 0.0)
    b_grad_bias = tl.sum(b_ds, axis=0)
    if p_part is not None:
        # rows of dq, summed before the product
        _store_sum(p_part, b_grad_bias[:, None] * b_k.to(tl.float32) * SCALE, o_part, D, BLOCK_D)
    b_ds = b_ds.to(b_q.dtype)
    _store(p_grad_k, _dot(tl.trans(b_ds), b_q, DOT) * SCALE, o_grad_t, s_dkn, o_t, num_t, D, BLOCK_D)
    o_grad_q = i_outer_q * s_dqg + i_first_q * s_dqn + i_h * D
    _store(p_grad_q, _dot(b_ds, b_k, DOT) * SCALE, o_grad_q, s_dqn, o_q, num_q, D, BLOCK_D)
    if p_bias is not None:
        _store_bias(p_grad_bias + i_pair * T + o_t, b_grad_bias, o_t < T, adds)


@triton.jit(do_not_specialize=["Q", "T", "num_alike", "num_masks", "num_rows"])
def masked_attention_bwd_q_kernel(
    p_q, p_k, p_v, p_bias, p_valid, p_start_q, p_start_t, p_grad, p_lse, p_out, p_delta, p_grad_q, p_part,
    s_qg, s_qh, s_qn, s_kg, s_kh, s_kn, s_vg, s_vh, s_vn, s_dqg, s_dqn,
    Q, T, num_alike, num_masks, num_rows,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr, NUM_Q: tl.constexpr, NUM_T: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0).to(tl.int64)
    i_pair, i_q = i_program // NUM_Q, (i_program % NUM_Q).to(tl.int32)
    i_g, i_h = i_pair // H, i_pair % H
    i_outer_q, i_first_q, num_q = _sequence(p_start_q, i_g, num_masks, Q)
    i_outer_t, i_first_t, num_t = _sequence(p_start_t, i_g, num_masks, T)
    o_out = (_first_row(p_start_q, i_outer_q, i_first_q, Q, num_rows) * H + i_h) * D
    o_q = i_q * BLOCK_Q + tl.arange(0, BLOCK_Q)
    b_q = _load(p_q, i_outer_q * s_qg + i_first_q * s_qn + i_h * s_qh, s_qn, o_q, num_q, D, BLOCK_D)
    b_grad = _load(p_grad, o_out, H * D, o_q, num_q, D, BLOCK_D)
    b_out = _load(p_out, o_out, H * D, o_q, num_q, D, BLOCK_D)
    b_lse = tl.load(p_lse + i_pair * Q + o_q, mask=o_q < num_q, other=float("inf"))
    # sum_j p dp = dout . out
    b_delta = tl.sum(b_grad.to(tl.float32) * b_out.to(tl.float32), axis=1)
    tl.store(p_delta + i_pair * Q + o_q, b_delta, mask=o_q < num_q)
    b_grad_q = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    for i_t in range(NUM_T):
        if CAUSAL:
            is_needed = i_t * BLOCK_T < (i_q + 1) * BLOCK_Q
        else:
            is_needed = True
        if is_needed:
            o_t = i_t * BLOCK_T + tl.arange(0, BLOCK_T)
            b_k = _load(p_k, i_outer_t * s_kg + i_first_t * s_kn + i_h * s_kh, s_kn, o_t, num_t, D, BLOCK_D)
            b_v = _load(p_v, i_outer_t * s_vg + i_first_t * s_vn + i_h * s_vh, s_vn, o_t, num_t, D, BLOCK_D)
            b_bias, m_visible = _keys(p_bias, p_valid, i_g, i_g // num_alike, o_t, T, num_t)
            b_s, m_seen = _scores(b_q, b_k, b_bias, m_visible, o_q, o_t, num_t, SCALE, CAUSAL, DOT)
            b_dp = _dot(b_grad, tl.trans(b_v), DOT)
            b_ds = tl.where(m_seen, _shares(b_s, b_lse, num_t) * (b_dp - b_delta[:, None]), 0.0)
            b_grad_q += _dot(b_ds.to(b_k.dtype), b_k, DOT)
    b_grad_q *= SCALE
    o_grad_q = i_outer_q * s_dqg + i_first_q * s_dqn + i_h * D
    _store(p_grad_q, b_grad_q, o_grad_q, s_dqn, o_q, num_q, D, BLOCK_D)
    if p_part is not None:
        # rows of dout are summed apart, for which there are too few registers here
        _store_sum(p_part, b_grad_q, ((i_g * NUM_Q + i_q) * H + i_h) * D, D, BLOCK_D)


@triton.jit(do_not_specialize=["Q", "T", "num_alike", "num_masks", "num_rows", "adds"])
def masked_attention_bwd_kv_kernel(
    p_q, p_k, p_v, p_bias, p_valid, p_start_q, p_start_t, p_grad, p_lse, p_delta, p_grad_k, p_grad_v, p_grad_bias,
    s_qg, s_qh, s_qn, s_kg, s_kh, s_kn, s_vg, s_vh, s_vn, s_dkg, s_dkn,
    Q, T, num_alike, num_masks, num_rows, adds,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr, NUM_Q: tl.constexpr, NUM_T: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0).to(tl.int64)
    i_pair, i_t = i_program // NUM_T, (i_program % NUM_T).to(tl.int32)
    i_g, i_h = i_pair // H, i_pair % H
    i_outer_q, i_first_q, num_q = _sequence(p_start_q, i_g, num_masks, Q)
    i_outer_t, i_first_t, num_t = _sequence(p_start_t, i_g, num_masks, T)
    o_t = i_t * BLOCK_T + tl.arange(0, BLOCK_T)
    b_k = _load(p_k, i_outer_t * s_kg + i_first_t * s_kn + i_h * s_kh, s_kn, o_t, num_t, D, BLOCK_D)
    b_v = _load(p_v, i_outer_t * s_vg + i_first_t * s_vn + i_h * s_vh, s_vn, o_t, num_t, D, BLOCK_D)
    b_bias, m_visible = _keys(p_bias, p_valid, i_g, i_g // num_alike, o_t, T, num_t)
    b_grad_k = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    b_grad_v = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    b_grad_bias = tl.zeros([BLOCK_T], tl.float32)
    for i_q in range(NUM_Q):
        o_q = i_q * BLOCK_Q + tl.arange(0, BLOCK_Q)
        b_lse = tl.load(p_lse + i_pair * Q + o_q, mask=o_q < num_q, other=float("inf"))
        if CAUSAL:
            # a row without a visible key averages the values of its future, too
            is_needed = (i_t * BLOCK_T < (i_q + 1) * BLOCK_Q) | (tl.min(b_lse, axis=0) < _EMPTY_ROW)
        else:
            is_needed = True
        if is_needed:
            b_q = _load(p_q, i_outer_q * s_qg + i_first_q * s_qn + i_h * s_qh, s_qn, o_q, num_q, D, BLOCK_D)
            o_out = (_first_row(p_start_q, i_outer_q, i_first_q, Q, num_rows) * H + i_h) * D
            b_grad = _load(p_grad, o_out, H * D, o_q, num_q, D, BLOCK_D)
            b_delta = tl.load(p_delta + i_pair * Q + o_q, mask=o_q < num_q, other=0.0)
            b_s, m_seen = _scores(b_q, b_k, b_bias, m_visible, o_q, o_t, num_t, SCALE, CAUSAL, DOT)
            b_p = _shares(b_s, b_lse, num_t)
            b_grad_v += _dot(tl.trans(b_p.to(b_grad.dtype)), b_grad, DOT)
            b_dp = _dot(b_grad, tl.trans(b_v), DOT)
            b_ds = tl.where(m_seen, b_p * (b_dp - b_delta[:, None]), 0.0)
            b_grad_bias += tl.sum(b_ds, axis=0)
            b_grad_k += _dot(tl.trans(b_ds.to(b_q.dtype)), b_q, DOT)
    if p_bias is not None:
        _store_bias(p_grad_bias + i_pair * T + o_t, b_grad_bias, o_t < T, adds)
    o_grad_t = i_outer_t * s_dkg + i_first_t * s_dkn + i_h * D
    _store(p_grad_k, b_grad_k * SCALE, o_grad_t, s_dkn, o_t, num_t, D, BLOCK_D)
    _store(p_grad_v, b_grad_v, o_grad_t, s_dkn, o_t, num_t, D, BLOCK_D)


def blocks(num_queries: int, num_keys: int, head_dim: int, element_bytes: int) -> dict[str, int]:
    """Block sizes and warps of a launch, chosen so that no architecture spills registers."""
    block_d = max(triton.next_power_of_2(head_dim), 16)
    if element_bytes == 4:
        # exact fp32 products run without tensor cores and hold their operands in registers
        block_q = block_t = 32 if block_d <= 64 else 16
    elif block_d > 64:
        block_q = block_t = 32
    else:
        block_q, block_t = 64, 64 if max(num_queries, num_keys) <= 64 else 32
    return {
        "BLOCK_Q": min(max(triton.next_power_of_2(num_queries), _SMALLEST_BLOCK), block_q),
        "BLOCK_T": min(max(triton.next_power_of_2(num_keys), _SMALLEST_BLOCK), block_t),
        "BLOCK_D": block_d,
        "num_warps": 8 if element_bytes == 4 else 4,
        "num_stages": 1,
    }


def is_one_tile(num_queries: int, num_keys: int, tile: dict[str, int]) -> bool:
    """Whether a block holds all queries and all keys of a head."""
    return num_queries <= tile["BLOCK_Q"] and num_keys <= tile["BLOCK_T"]


def _numbers(inputs: dict[str, Any], tile: dict[str, int]) -> dict[str, int]:
    """Returns how many blocks the queries and the keys are cut into."""
    return {"NUM_Q": triton.cdiv(inputs["Q"], tile["BLOCK_Q"]), "NUM_T": triton.cdiv(inputs["T"], tile["BLOCK_T"])}


def _sequences(
    query: Tensor, lse: Tensor, key_valid: Tensor | None, start: Tensor | None, causal: bool
) -> dict[str, Any]:
    """Returns the arguments that tell where sequences lie, how long they are, and how many have the same keys valid."""
    num_sequences, _, longest = lse.shape
    inputs: dict[str, Any] = {
        "p_start_q": start,
        "p_start_t": start if causal else None,
        "num_masks": 1 if start is None else query.shape[0],
        "num_alike": 1 if key_valid is None else num_sequences // len(key_valid),
        "num_rows": query.shape[2],
        "Q": longest,
    }
    return inputs | ({"T": longest} if start is not None and causal else {})


def masked_attention_fwd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    causal: bool,
    tf32: bool,
    start: Tensor | None = None,
    longest: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attention, Eq. (8).

    Args:
        query: [G, H, Q, D], key and value: [G, H, T, D], of one dtype: fp32, fp16 or bf16; any strides.
        key_bias: [G, T], of any of these dtypes, or None.
        key_valid: [G, T] bool, or [G / N, T] for sequences of which N in a row have the same keys valid; or None.
        causal: as in the equation.
        tf32: multiply fp32 operands on tensor cores, which read 10 bits of their mantissas.
        start, longest: of `Ragged` rows, where sentences lie one behind another: query is then [N, H, R, D] and, of
            causal attention, so are key and value; sequence g = b * N + m is sentence b under mask m. None and 0 where
            all sequences are Q queries long.
    Returns:
        out in the query's shape and dtype, and its lse [G, H, Q] fp32 in units of log 2, for the backward pass; Q is
        `longest` of ragged rows.
    """
    num, heads, num_queries, head_dim = query.shape
    if start is not None:
        num, num_queries = num * (len(start) - 1), longest
    out, lse = _like_heads(query, query.shape[2]), empty(query, num, heads, num_queries)
    inputs = _inputs(query, key, value, key_bias, key_valid, causal, tf32)
    inputs |= _sequences(query, lse, key_valid, start, causal)
    tile = blocks(num_queries, inputs["T"], head_dim, query.element_size())
    tile |= _numbers(inputs, tile)
    with device_of(query):
        masked_attention_fwd_kernel[(num * heads * tile["NUM_Q"],)](**inputs, p_out=out, p_lse=lse, **tile)
    return out, lse


def masked_attention_bwd(
    results: list[Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    causal: bool,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the attention, Eq. (8).

    Args:
        results: gradient of out [G, H, Q, D], and out and lse of the forward pass.
        query, key, value, key_bias, key_valid, causal, tf32: as in the forward pass.
    Returns:
        gradients of query, key and value, in their shapes and dtype; of the bias [G, T] fp32, [G, 0] without a bias.
    """
    grads = [_like_heads(x, x.shape[2]) for x in (query, key, value)]
    grad_bias = empty(query, *query.shape[:2], 0 if key_bias is None else key.shape[2])
    inputs = ([query, key, value], key_bias, key_valid, [causal, tf32, False], None)
    masked_attention_bwd_into([*grads, grad_bias], results, *inputs)
    return grads[0], grads[1], grads[2], grad_bias.sum(1)


def masked_attention_bwd_into(
    grads: list[Tensor],
    results: list[Tensor],
    projected: list[Tensor],
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    flags: list[bool],
    projection_bias: Tensor | None,
    start: Tensor | None = None,
) -> None:
    """Gradients of the attention, Eq. (8), written where the caller wants them: into parts of packed projections.

    Args:
        grads: receive the gradients of query, key and value, in their shapes and dtype, and of the bias for each head,
            [G, H, T] fp32, which is not read without a bias; rows [H, D] are contiguous, and those of key and value
            have the same strides.
        results: gradient of out [G, H, Q, D], and out and lse of the forward pass.
        projected: query, key and value.
        key_bias, key_valid: as in the forward pass.
        flags: causal and tf32, as in the forward pass; and whether the gradient of the bias is added to what is there.
        projection_bias: gradient of the bias of the packed projection, [3 * H * D] fp32 of query, key and value; those
            of query and value are added to in place, that of the key is 0. Or None.
        start: as in the forward pass.
    """
    (query, key, value), (causal, tf32, adds) = projected, flags
    inputs = _inputs(query, key, value, key_bias, key_valid, causal, tf32)
    inputs |= _sequences(query, results[2], key_valid, start, causal)
    inputs |= {"p_grad": results[0].transpose(1, 2).contiguous(), "p_lse": results[2]}
    of_query = {"p_grad_q": grads[0], "s_dqg": grads[0].stride(0), "s_dqn": grads[0].stride(2)}
    of_keys = {"p_grad_k": grads[1], "s_dkg": grads[1].stride(0), "s_dkn": grads[1].stride(2), "adds": int(adds)}
    of_keys |= {"p_grad_v": grads[2], "p_grad_bias": grads[3]}
    tile = blocks(inputs["Q"], inputs["T"], query.shape[3], query.element_size())
    with device_of(query):
        if is_one_tile(inputs["Q"], inputs["T"], tile):
            _bwd_tile(inputs | of_query | of_keys | tile, projection_bias)
        else:
            _bwd_blocks(inputs | tile | _numbers(inputs, tile), of_query, of_keys, results[1], projection_bias)


def _bwd_tile(inputs: dict[str, Any], projection_bias: Tensor | None) -> None:
    """Launches one program per head."""
    query, (num, heads, _) = inputs["p_q"], inputs["p_lse"].shape
    part = None if projection_bias is None else empty(query, num, 2, heads * query.shape[3])
    masked_attention_bwd_tile_kernel[(num * heads,)](**inputs, p_part=part)
    add_sums(part, projection_bias)


def _bwd_blocks(
    inputs: dict[str, Any],
    of_query: dict[str, Any],
    of_keys: dict[str, Any],
    out: Tensor,
    projection_bias: Tensor | None,
) -> None:
    """Launches one program per block of queries, which also leaves delta, and then one per block of keys."""
    query, (num, heads, num_queries) = inputs["p_q"], inputs["p_lse"].shape
    num_q, num_t, width = inputs["NUM_Q"], inputs["NUM_T"], heads * query.shape[3]
    part = None if projection_bias is None else empty(query, num * num_q, 1, width)
    inputs["p_delta"], out = empty(query, num, heads, num_queries), out.transpose(1, 2).contiguous()
    masked_attention_bwd_q_kernel[(num * heads * num_q,)](**inputs, **of_query, p_out=out, p_part=part)
    masked_attention_bwd_kv_kernel[(num * heads * num_t,)](**inputs, **of_keys)
    if part is not None and projection_bias is not None:
        add_totals(part, [projection_bias[:width]])
        linear_gradient(inputs["p_grad"].view(-1, width), None, projection_bias[2 * width :])
