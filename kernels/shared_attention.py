"""Mask-conditioned attention of one sequence under N masks, forward and backward (Eq. 8).

In the notation of `masked_attention`, for each mask n; the scores s are shared and only the bias b_n differs:

    p_n = 2^(s + b_n - lse_n)      out_n = p_n v            ds_n = p_n (dp_n - delta_n), 0 at hidden keys
    dv = sum_n p_n^T dout_n        ds = sum_n ds_n          db_n = sum_i ds_n,i
    dq = ds k / sqrt(D)            dk = ds^T q / sqrt(D)

A program loads a block of queries, all keys and values and computes s once for the masks of a chunk. In the backward
pass it writes the part of its masks and queries in dq, dk and dv; a second kernel sums the parts over chunks and blocks
in a fixed order, and where query, key and value are parts of a packed projection, the rows of dq and dv to the gradient
of that layer's bias. Nothing is added atomically, so two runs agree bitwise.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty
from pps_fast.kernels.tiles import (
    _EMPTY_ROW,
    _dot,
    _inputs,
    _keys,
    _like_heads,
    _load,
    _scores,
    _shares,
    _store,
    add_sums,
)

# most masks of one program: few enough to fill a GPU, many enough to profit from the shared scores
_FWD_MASKS, _BWD_MASKS = 8, 16
# fewest rows and columns of a sum of parts that one program holds, and its warps: with 4, Triton 3.6 spills registers
_TOTAL_R, _TOTAL_C, _TOTAL_WARPS = 64, 64, 8


@triton.jit(do_not_specialize=["N", "chunk"])
def shared_attention_fwd_kernel(
    p_q, p_k, p_v, p_bias, p_valid, p_out, p_lse,
    N, chunk,
    s_qg: tl.constexpr, s_qh: tl.constexpr, s_qn: tl.constexpr,
    s_kg: tl.constexpr, s_kh: tl.constexpr, s_kn: tl.constexpr,
    s_vg: tl.constexpr, s_vh: tl.constexpr, s_vn: tl.constexpr,
    SCALE: tl.constexpr,
    CAUSAL: tl.constexpr,
    H: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    i_pair, i_chunk, i_q = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    i_b, i_h = i_pair // H, i_pair % H
    o_q, o_t = i_q * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_T)
    b_q = _load(p_q, i_b * s_qg + i_h * s_qh, s_qn, o_q, Q, D, BLOCK_D)
    b_k = _load(p_k, i_b * s_kg + i_h * s_kh, s_kn, o_t, T, D, BLOCK_D)
    b_v = _load(p_v, i_b * s_vg + i_h * s_vh, s_vn, o_t, T, D, BLOCK_D)
    b_none, m_visible = _keys(None, p_valid, i_b, i_b, o_t, T, T)
    b_shared, m_seen = _scores(b_q, b_k, b_none, m_visible, o_q, o_t, T, SCALE, CAUSAL, DOT)
    for i in range(tl.minimum(chunk, N - i_chunk * chunk)):
        i_n = i_chunk * chunk + i
        i_g = i_b * N + i_n
        b_bias, m_key = _keys(p_bias, None, i_g, i_g, o_t, T, T)
        b_s = b_shared + b_bias[None, :]
        b_max = tl.max(b_s, axis=1)
        b_p = tl.exp2(b_s - b_max[:, None])
        b_sum = tl.sum(b_p, axis=1)
        b_out = _dot(b_p.to(b_v.dtype), b_v, DOT) / b_sum[:, None]
        _store(p_out, b_out, (i_g * Q * H + i_h) * D, H * D, o_q, Q, D, BLOCK_D)
        tl.store(p_lse + (i_g * H + i_h) * Q + o_q, b_max + tl.log2(b_sum), mask=o_q < Q)


@triton.jit(do_not_specialize=["N", "chunk"])
def shared_attention_bwd_kernel(
    p_q, p_k, p_v, p_bias, p_valid, p_grad, p_lse, p_grad_q, p_grad_k, p_grad_v, p_grad_bias,
    N, chunk,
    s_qg: tl.constexpr, s_qh: tl.constexpr, s_qn: tl.constexpr,
    s_kg: tl.constexpr, s_kh: tl.constexpr, s_kn: tl.constexpr,
    s_vg: tl.constexpr, s_vh: tl.constexpr, s_vn: tl.constexpr,
    SCALE: tl.constexpr,
    CAUSAL: tl.constexpr,
    MOST: tl.constexpr, H: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    NUM_Q: tl.constexpr = (Q + BLOCK_Q - 1) // BLOCK_Q
    i_pair, i_chunk, i_q = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    i_b, i_h = i_pair // H, i_pair % H
    o_q, o_t = i_q * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_T)
    b_q = _load(p_q, i_b * s_qg + i_h * s_qh, s_qn, o_q, Q, D, BLOCK_D)
    b_k = _load(p_k, i_b * s_kg + i_h * s_kh, s_kn, o_t, T, D, BLOCK_D)
    b_v = _load(p_v, i_b * s_vg + i_h * s_vh, s_vn, o_t, T, D, BLOCK_D)
    b_none, m_visible = _keys(None, p_valid, i_b, i_b, o_t, T, T)
    b_shared, m_seen = _scores(b_q, b_k, b_none, m_visible, o_q, o_t, T, SCALE, CAUSAL, DOT)
    b_ds = tl.zeros([BLOCK_Q, BLOCK_T], tl.float32)
    b_grad_v = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    num_masks = tl.minimum(chunk, N - i_chunk * chunk)
    # with a run-time end of the loop, registers spill
    for i in range(MOST):
        if i < num_masks:
            i_n = i_chunk * chunk + i
            i_g = i_b * N + i_n
            b_bias, m_key = _keys(p_bias, None, i_g, i_g, o_t, T, T)
            # rows that do not exist get probability 0
            b_lse = tl.load(p_lse + (i_g * H + i_h) * Q + o_q, mask=o_q < Q, other=float("inf"))
            b_grad = _load(p_grad, (i_g * Q * H + i_h) * D, H * D, o_q, Q, D, BLOCK_D)
            b_p = _shares(b_shared + b_bias[None, :], b_lse, T)
            b_grad_v += _dot(tl.trans(b_p.to(b_grad.dtype)), b_grad, DOT)
            b_dp = _dot(b_grad, tl.trans(b_v), DOT)
            b_dp = b_p * (b_dp - tl.sum(b_p * b_dp, axis=1)[:, None])
            # hidden keys are recognized by their scores, because keeping a mask would take registers
            b_dp = tl.where(b_shared < _EMPTY_ROW, 0.0, b_dp)
            o_bias = ((i_g * H + i_h) * NUM_Q + i_q) * T + o_t
            tl.store(p_grad_bias + o_bias, tl.sum(b_dp, axis=0), mask=o_t < T)
            b_ds += b_dp
    # this chunk's part of dq, and this chunk's and block's part of dk and dv
    num_samples = tl.num_programs(0) // H
    i_rows, i_keys = i_chunk * num_samples + i_b, (i_chunk * NUM_Q + i_q) * num_samples + i_b
    b_ds = b_ds.to(b_q.dtype)
    _store(p_grad_q, _dot(b_ds, b_k, DOT) * SCALE, (i_rows * Q * H + i_h) * D, H * D, o_q, Q, D, BLOCK_D)
    _store(p_grad_k, _dot(tl.trans(b_ds), b_q, DOT) * SCALE, (i_keys * T * H + i_h) * D, H * D, o_t, T, D, BLOCK_D)
    _store(p_grad_v, b_grad_v, (i_keys * T * H + i_h) * D, H * D, o_t, T, D, BLOCK_D)


@triton.jit
def _total(
    p_parts, p_grad, p_sum, i_b, o_c, o_sum, ROWS, s_g, s_n, number,
    C: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Sums columns of the parts of a sample's gradient, and their rows where there is a place for that."""
    o_row = tl.arange(0, BLOCK_R)
    m_all = (o_row < ROWS)[:, None] & (o_c < C)[None, :]
    b_grad = tl.zeros([BLOCK_R, o_c.shape[0]], tl.float32)
    for i in range(number):
        i_part = i * tl.num_programs(0) + i_b
        o_all = (i_part * ROWS + o_row[:, None]) * C + o_c[None, :]
        b_grad += tl.load(p_parts + o_all, mask=m_all, other=0.0).to(tl.float32)
    o_all = i_b * s_g + o_row[:, None] * s_n + o_c[None, :]
    tl.store(p_grad + o_all, b_grad.to(p_grad.dtype.element_ty), mask=m_all)
    if p_sum is not None:
        tl.store(p_sum + o_sum, tl.sum(b_grad, axis=0), mask=o_c < C)


@triton.jit(do_not_specialize=["Q", "T", "number_q", "number_k"])
def shared_attention_bwd_total_kernel(
    p_parts_q, p_parts_k, p_parts_v, p_grad_q, p_grad_k, p_grad_v, p_sum,
    s_qg, s_qn, s_kg, s_kn,
    Q, T, number_q, number_k,
    C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    i_b = tl.program_id(0).to(tl.int64)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    # of [B, 2, C], as keys need no sum
    o_sum = i_b * 2 * C + o_c
    if tl.program_id(2) == 0:
        _total(p_parts_q, p_grad_q, p_sum, i_b, o_c, o_sum, Q, s_qg, s_qn, number_q, C, BLOCK_R)
    elif tl.program_id(2) == 1:
        _total(p_parts_k, p_grad_k, None, i_b, o_c, o_sum, T, s_kg, s_kn, number_k, C, BLOCK_R)
    else:
        _total(p_parts_v, p_grad_v, p_sum, i_b, o_c, o_sum + C, T, s_kg, s_kn, number_k, C, BLOCK_R)


def blocks(num_queries: int, num_keys: int, head_dim: int, element_bytes: int) -> dict[str, int]:
    """Returns the block sizes of a launch; the block of keys holds all of them."""
    block_d = max(triton.next_power_of_2(head_dim), 16)
    # with more queries, the backward pass spills registers on sm_80, sm_86 and sm_120
    block_q = 16 if element_bytes == 4 and block_d > 64 else 32
    return {
        "BLOCK_Q": min(max(triton.next_power_of_2(num_queries), 16), block_q),
        "BLOCK_T": max(triton.next_power_of_2(num_keys), 16),
        "BLOCK_D": block_d,
    }


def warps(tile: dict[str, int], element_bytes: int, dot: str, is_backward: bool) -> dict[str, int]:
    """Returns warps and stages of a launch, chosen so that no architecture spills registers."""
    if element_bytes == 4 and dot == "ieee" and is_backward:
        # with 4 or 8 warps Triton 3.7 computes "ieee" products of 64 rows on sm_100's tensor cores, which round to tf32
        num_warps = 16
    else:
        num_warps = 8 if element_bytes == 4 or (is_backward and tile["BLOCK_D"] > 64) else 4
    return {"num_warps": num_warps, "num_stages": 1}


def chunks(num_masks: int, is_backward: bool) -> tuple[int, int]:
    """Returns into how many chunks the masks are cut, and how many masks a chunk has at most."""
    number = triton.cdiv(num_masks, _BWD_MASKS if is_backward else _FWD_MASKS)
    return number, triton.cdiv(num_masks, number)


def _launch(kernel: Any, inputs: dict[str, Any], num_masks: int, is_backward: bool) -> None:
    query = inputs["p_q"]
    tile = blocks(inputs["Q"], inputs["T"], inputs["D"], query.element_size())
    number, size = chunks(num_masks, is_backward)
    grid = (query.shape[0] * query.shape[1], number, triton.cdiv(inputs["Q"], tile["BLOCK_Q"]))
    options = warps(tile, query.element_size(), inputs["DOT"], is_backward)
    with device_of(query):
        kernel[grid](**inputs, **tile, **options, N=num_masks, chunk=size)


def shared_attention_fwd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None,
    causal: bool,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    """Attention of one sequence under every mask, Eq. (8).

    Args:
        query: [B, H, Q, D], key and value: [B, H, T, D], of one dtype: fp32, fp16 or bf16; any strides.
        key_bias: [B, N, T] of any of these dtypes.
        key_valid: [B, T] bool, or None.
        causal: as in the equation.
        tf32: multiply fp32 operands on tensor cores, which read 10 bits of their mantissas.
    Returns:
        [B, N, H, Q, D] in the inputs' dtype, in the memory layout that projections read, [B, N, Q, H, D]; and its lse
        [B, N, H, Q] fp32 in units of log 2, for the backward pass.
    """
    num, heads, num_queries, head_dim = query.shape
    num_masks = key_bias.shape[1]
    out = empty(query, num, num_masks, num_queries, heads, head_dim, dtype=query.dtype).transpose(2, 3)
    lse = empty(query, num, num_masks, heads, num_queries)
    inputs = _inputs(query, key, value, key_bias, key_valid, causal, tf32)
    _launch(shared_attention_fwd_kernel, inputs | {"p_out": out, "p_lse": lse}, num_masks, is_backward=False)
    return out, lse


def _parts_of(like: Tensor, number: int) -> Tensor:
    """Allocates `number` parts of a result [G, H, n, D] as [number * G, n, H, D]: fp32, whatever their number is."""
    num, heads, rows, width = like.shape
    return empty(like, number * num, rows, heads, width)


def shared_attention_bwd(
    results: list[Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None,
    causal: bool,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the attention.

    Args:
        results: gradient of out [B, N, H, Q, D], and lse of the forward pass.
        query, key, value, key_bias, key_valid, causal, tf32: as in the forward pass.
    Returns:
        gradients of query, key and value, in their shapes and dtype; of the bias [B, N, T] fp32.
    """
    grads = [_like_heads(x, x.shape[2]) for x in (query, key, value)]
    projected, others = [query, key, value], (key_bias, key_valid, causal, tf32, None)
    return grads[0], grads[1], grads[2], shared_attention_bwd_into(grads, results, projected, *others)


def shared_attention_bwd_into(
    grads: list[Tensor],
    results: list[Tensor],
    projected: list[Tensor],
    key_bias: Tensor,
    key_valid: Tensor | None,
    causal: bool,
    tf32: bool,
    projection_bias: Tensor | None,
) -> Tensor:
    """Gradients of the attention, written where the caller wants them: into parts of a packed projection.

    Args:
        grads: receive the gradients of query, key and value, in their shapes and dtype; rows [H, D] are contiguous, and
            those of key and value have the same strides.
        results: gradient of out [B, N, H, Q, D], and lse of the forward pass.
        projected: query, key and value.
        key_bias, key_valid, causal, tf32: as in the forward pass.
        projection_bias: gradient of the bias of the packed projection, [3 * H * D] fp32 of query, key and value; those
            of query and value are added to in place, that of the key is 0. Or None.
    Returns:
        gradient of the bias [B, N, T] fp32.
    """
    (query, key, value), (grad, lse) = projected, results
    number, _ = chunks(key_bias.shape[1], is_backward=True)
    tile = blocks(query.shape[2], key.shape[2], query.shape[3], query.element_size())
    num_blocks = triton.cdiv(query.shape[2], tile["BLOCK_Q"])
    numbers = {"q": number, "k": number * num_blocks, "v": number * num_blocks}
    parts = {name: _parts_of(x, numbers[name]) for name, x in (("q", query), ("k", key), ("v", value))}
    grad_bias = empty(query, *key_bias.shape[:2], query.shape[1], num_blocks, key.shape[2])
    inputs = _inputs(query, key, value, key_bias, key_valid, causal, tf32)
    inputs |= {f"p_grad_{name}": part for name, part in parts.items()}
    inputs |= {"p_grad": grad.transpose(2, 3).contiguous(), "p_lse": lse, "p_grad_bias": grad_bias, "MOST": _BWD_MASKS}
    _launch(shared_attention_bwd_kernel, inputs, key_bias.shape[1], is_backward=True)
    _launch_total(parts, numbers, grads, projection_bias)
    return grad_bias.sum((2, 3))


def _launch_total(
    parts: dict[str, Tensor], numbers: dict[str, int], grads: list[Tensor], projection_bias: Tensor | None
) -> None:
    """Sums parts to gradients, and their rows to that of the projection's bias."""
    num, heads, num_queries, head_dim = grads[0].shape
    num_keys, width = grads[1].shape[2], heads * head_dim
    summed = None if projection_bias is None else empty(grads[0], num, 2, width)
    strides = {"s_qg": grads[0].stride(0), "s_qn": grads[0].stride(2)}
    strides |= {"s_kg": grads[1].stride(0), "s_kn": grads[1].stride(2)}
    block = max(triton.next_power_of_2(max(num_queries, num_keys)), _TOTAL_R)
    with device_of(grads[0]):
        shared_attention_bwd_total_kernel[(num, triton.cdiv(width, _TOTAL_C), 3)](
            **{f"p_parts_{name}": part for name, part in parts.items()},
            **{f"p_grad_{name}": grad for name, grad in zip("qkv", grads, strict=True)},
            **strides, p_sum=summed, Q=num_queries, T=num_keys, number_q=numbers["q"], number_k=numbers["k"],
            C=width, BLOCK_R=block, BLOCK_C=_TOTAL_C, num_warps=_TOTAL_WARPS,
        )  # fmt: skip
        add_sums(summed, projection_bias)
