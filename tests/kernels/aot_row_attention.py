"""Variants of the attention of one row, for `aot.py`: of the widths of the presets, and of the largest ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from pps_fast.kernels import row_attention
from tests.kernels.variant import Variant

_INPUTS = ("p_q", "p_memory", "p_bias", "p_valid")
_POINTERS = {
    "fwd": (*_INPUTS, "p_out", "p_lse"),
    "bwd_q": (*_INPUTS, "p_grad", "p_lse", "p_grad_q", "p_delta"),
    "bwd_memory": (*_INPUTS, "p_grad", "p_lse", "p_delta", "p_grad_memory", "p_grad_bias"),
}
_FP32 = ("p_bias", "p_lse", "p_delta", "p_grad_bias")
_HEADS = 4
_WIDTHS, _DTYPES = (64, 256, 512, 2048), ("bf16", "fp16", "fp32")


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for part, width, dtype, is_ragged in product(_POINTERS, _WIDTHS, _DTYPES, (False, True)):
        if is_ragged and width != 256:
            continue
        signature: dict[str, str | int] = {p: "*fp32" if p in _FP32 else f"*{dtype}" for p in _POINTERS[part]}
        # 27 masks of a sample have the same keys valid
        signature |= {"p_valid": "*i1", "T": 50, "G": 864, "H": _HEADS, "num_alike": 27, "has_bias": 1}
        signature |= {"s_mg": 50 * width, "num_masks": 27} | ({"p_start": "*i32"} if is_ragged else {})
        constants: dict[str, Any] = {} if is_ragged else {"p_start": None}
        constants |= {"SCALE": (width / _HEADS) ** -0.5, "D": width, **row_attention.blocks(width)}
        kernel = getattr(row_attention, f"row_attention_{part}_kernel")
        yield Variant(f"{width}_{dtype}{'_ragged' if is_ragged else ''}", kernel, signature, constants)
