"""What the kernels of both attentions have in common: tiles of heads, scores, and the arguments of a launch.

Lengths and strides are run-time integers, so that a new sentence length needs no compilation. Lengths are not
specialized by the launches either; strides are, because rows that begin at multiples of 16 are loaded 16 bytes at once.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import empty, is_interpreted
from pps_fast.kernels.linear_gradient import add_totals

# as in the equation; scores here are in units of log 2, but the stand-in for minus infinity need not be converted
HIDDEN_SCORE = tl.constexpr(-1e30)
_EMPTY_ROW = tl.constexpr(-5e29)
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _dot(b_a, b_b, DOT: tl.constexpr):
    """Returns the product, accumulated in fp32: "ieee" or "tf32" for fp32 operands, "upcast" for the interpreter."""
    if DOT == "upcast":
        # the interpreter cannot multiply bf16
        return tl.dot(b_a.to(tl.float32), b_b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(b_a, b_b, input_precision=DOT)


@triton.jit
def _tile(o_base, s_row, o_row, ROWS, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Returns offsets [rows, D], which inside a tile fit into 32 bits (see `_rows`), and which of them exist."""
    o_d = tl.arange(0, BLOCK_D)
    o_tile = o_base + o_d[None, :] + o_row[:, None] * s_row
    return o_tile, (o_row < ROWS)[:, None] & (o_d < D)[None, :]


@triton.jit
def _load(p_x, o_base, s_row, o_row, ROWS, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Loads a tile [rows, D], with 0 where nothing exists."""
    o_tile, m_tile = _tile(o_base, s_row, o_row, ROWS, D, BLOCK_D)
    return tl.load(p_x + o_tile, mask=m_tile, other=0.0)


@triton.jit
def _store(p_x, b_x, o_base, s_row, o_row, ROWS, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores a tile [rows, D]."""
    o_tile, m_tile = _tile(o_base, s_row, o_row, ROWS, D, BLOCK_D)
    tl.store(p_x + o_tile, b_x.to(p_x.dtype.element_ty), mask=m_tile)


@triton.jit
def _sequence(p_start, i_g, num_masks, length):
    """Returns of a sequence: which of the outermost entries it lies in, its first row there, and how many rows it has.

    Without p_start each entry is a sequence. With it, entry m holds the sentences of all samples under mask m, one
    behind another, and i_g counts the masks of the first sample, then those of the second, ...
    """
    if p_start is None:
        return i_g, 0, length
    else:
        i_first = tl.load(p_start + i_g // num_masks)
        num = tl.load(p_start + i_g // num_masks + 1) - i_first
        return i_g % num_masks, i_first.to(tl.int64), num


@triton.jit
def _first_row(p_start, i_outer, i_first, length, num_rows):
    """Returns the number of a sequence's first row among those of all entries, of which ragged ones have num_rows."""
    if p_start is None:
        return i_outer * length
    else:
        return i_outer * num_rows + i_first


@triton.jit
def _keys(p_bias, p_valid, i_g, i_valid, o_t, T, num):
    """Returns the bias of a block of keys in units of log 2, 0 without one, and which keys are not padding.

    The bias is row i_g of all biases, and what is not padding row i_valid, both T long; there are `num` keys.
    """
    m_t = o_t < num
    b_bias = tl.zeros(o_t.shape, tl.float32)
    if p_bias is not None:
        b_bias = tl.load(p_bias + i_g * T + o_t, mask=m_t, other=0.0).to(tl.float32) * _LOG2_E
    m_visible = m_t
    if p_valid is not None:
        m_visible = m_t & (tl.load(p_valid + i_valid * T + o_t, mask=m_t, other=0) != 0)
    return b_bias, m_visible


@triton.jit
def _scores(
    b_q, b_k, b_bias, m_visible, o_q, o_t, T,
    SCALE: tl.constexpr,
    CAUSAL: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Returns scores in units of log 2 and which of them are visible; keys beyond the last have score -inf."""
    m_seen = m_visible[None, :]
    if CAUSAL:
        m_seen = m_seen & (o_t[None, :] <= o_q[:, None])
    b_s = _dot(b_q, tl.trans(b_k), DOT) * (SCALE * _LOG2_E) + b_bias[None, :]
    b_hidden = tl.where(o_t < T, HIDDEN_SCORE, float("-inf"))
    return tl.where(m_seen, b_s, b_hidden[None, :]), m_seen


@triton.jit
def _shares(b_s, b_lse, T):
    """Returns the softmax from scores and lse, 0 where lse is inf; a row without a visible key averages all keys."""
    return tl.where((b_lse < _EMPTY_ROW)[:, None], 1.0 / T, tl.exp2(b_s - b_lse[:, None]))


@triton.jit
def _store_bias(p_bias, b_bias, m_t, adds):
    """Stores the gradient of a bias, or adds it to what is there, which no other program reads or writes."""
    b_bias += tl.load(p_bias, mask=m_t & (adds != 0), other=0.0)
    tl.store(p_bias, b_bias, mask=m_t)


@triton.jit
def _store_sum(p_part, b_x, o_part, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores the sum over the rows of a tile, which are 0 where none exists."""
    o_d = tl.arange(0, BLOCK_D)
    tl.store(p_part + o_part + o_d, tl.sum(b_x, axis=0), mask=o_d < D)


def dot_mode(tf32: bool) -> str:
    """Returns how a kernel multiplies, see `_dot`."""
    if is_interpreted():
        return "upcast"
    return "tf32" if tf32 else "ieee"


def _rows(x: Tensor) -> Tensor:
    """Returns x [G, H, n, D] with the elements of a row adjacent, and its rows less than 2^31 elements apart."""
    return x if x.stride(-1) == 1 and x.shape[2] * x.stride(2) < 1 << 31 else x.contiguous()


def _like_heads(x: Tensor, num_rows: int) -> Tensor:
    """Allocates a result [G, H, num_rows, D] in the memory layout that projections read, [G, num_rows, H, D]."""
    return empty(x, x.shape[0], num_rows, x.shape[1], x.shape[3], dtype=x.dtype).transpose(1, 2)


def _inputs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    causal: bool,
    tf32: bool,
) -> dict[str, Any]:
    """Returns the arguments that all kernels share."""
    rows: dict[str, Any] = {}
    for letter, x in (("q", _rows(query)), ("k", _rows(key)), ("v", _rows(value))):
        rows[f"p_{letter}"] = x
        rows |= {f"s_{letter}{axis}": stride for axis, stride in zip("ghn", x.stride(), strict=False)}
    return rows | {
        "p_bias": None if key_bias is None else key_bias.contiguous(),
        "p_valid": None if key_valid is None else key_valid.contiguous(),
        "SCALE": query.shape[3] ** -0.5,
        "CAUSAL": causal,
        "H": query.shape[1],
        "Q": query.shape[2],
        "T": key.shape[2],
        "D": query.shape[3],
        "DOT": dot_mode(tf32),
    }


def add_sums(part: Tensor | None, projection_bias: Tensor | None) -> None:
    """Adds what programs summed for query and value to the gradient of the bias of a packed projection.

    Args:
        part: [P, 2, H * D] fp32; None where nobody wants it.
        projection_bias: [3 * H * D] fp32 of query, key and value; None likewise.
    """
    if part is not None and projection_bias is not None:
        of_query, _, of_value = projection_bias.unflatten(0, (3, -1)).unbind()
        add_totals(part, [of_query, of_value])
