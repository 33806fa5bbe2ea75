"""Dropout of the input of a matrix product: keep scale x, in the dtype that the product reads.

keep is 0 or 1, a hash of counters (see `pps_fast/randomness.py`), and scale = 1 / (share kept). The gradient of x is
the same function of the gradient of the result, so that keep is never stored.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# as in pps_fast/randomness.py
_STEP = tl.constexpr(-1640531535)
_FIRST = tl.constexpr(-2048144789)
_SECOND = tl.constexpr(-1028477387)
# values held by one program
_BLOCK_V = 2048


@triton.jit
def _hashed(b_word):
    """Finishes `mix` of pps_fast/randomness.py for words that are already combined with their dropout key."""
    b_word = b_word * _FIRST
    b_word = b_word ^ (b_word >> 15)
    return b_word * _SECOND


@triton.jit
def _kept_values(b_dropout_key, o_value, THRESHOLD: tl.constexpr):
    """Returns which values dropout keeps, by their number in a sequence; the key is mixed with the site."""
    b_hash = _hashed(((o_value >> 1) * _STEP) ^ b_dropout_key)
    # two values share a hashed word: the even one takes its lower half, the odd one its upper half
    b_level = tl.where((o_value & 1) == 0, (b_hash << 16) >> 16, b_hash >> 16)
    return b_level >= THRESHOLD


@triton.jit(do_not_specialize=["N", "site", "first_row"])
def dropout_kernel(
    p_x, p_dropout_key, p_out,
    N, site, first_row,
    SCALE: tl.constexpr,
    THRESHOLD: tl.constexpr,
    IS_SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    i_sequence = tl.program_id(1)
    o_value = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    m_value = o_value < N * D
    o_out = i_sequence.to(tl.int64) * (N * D) + o_value
    # one sequence for all where x was expanded
    o_x = o_value if IS_SHARED else o_out
    b_dropout_key = _hashed(tl.load(p_dropout_key + i_sequence) ^ (site * _STEP))
    b_x = tl.load(p_x + o_x, mask=m_value, other=0.0).to(tl.float32)
    b_x = tl.where(_kept_values(b_dropout_key, first_row * D + o_value, THRESHOLD), b_x * SCALE, 0.0)
    tl.store(p_out + o_out, b_x.to(p_out.dtype.element_ty), mask=m_value)


def dropping(dropout_key: Tensor | None, settings: list[int]) -> dict[str, Any]:
    """Returns the arguments of every kernel that drops values.

    Args:
        dropout_key: [G] int32 of the sequences; None for no dropout.
        settings: index of the dropout site in the model, and how many of 65,536 hash levels are dropped.
    """
    site, num_dropped = settings
    dropout_key = None if dropout_key is None else dropout_key.contiguous()
    scale, threshold = 1 / (1 - num_dropped / 65536), num_dropped - 32768
    return {"p_dropout_key": dropout_key, "site": site, "SCALE": scale, "THRESHOLD": threshold}


def dropout(x: Tensor, dropout_key: Tensor, settings: list[int], first_row: int, dtype: torch.dtype) -> Tensor:
    """Drops values of sequences and scales the others.

    Args:
        x: [G, n, D], fp32, fp16 or bf16; where it was expanded over sequences it is read as it is.
        dropout_key: [G] int32 dropout key of each sequence.
        settings: index of the dropout site in the model, and how many of 65,536 hash levels are dropped.
        first_row: position of the first of the n rows in its sequence.
        dtype: of the result.
    Returns:
        [G, n, D].
    """
    num, length, width = x.shape
    is_shared = x.stride(0) == 0 and x[0].is_contiguous()
    x = x if is_shared else x.contiguous()
    out = empty(x, num, length, width, dtype=dtype)
    with device_of(x):
        dropout_kernel[(triton.cdiv(length * width, _BLOCK_V), num)](
            p_x=x, p_out=out, N=length, first_row=first_row, **dropping(dropout_key, settings), IS_SHARED=is_shared,
            D=width, BLOCK_V=_BLOCK_V, num_warps=4,
        )  # fmt: skip
    return out
