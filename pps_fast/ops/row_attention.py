"""Attention from one row of each sequence to its unprojected memory (Eq. 8), for `ops/row_sublayer.py` alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.registration import launcher_of, load_kernel, register

kernel = load_kernel("row_attention")


def _fake_fwd(query: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=torch.float32)


def _fake_bwd(
    results: list[Tensor],
    query: Tensor,
    memory: Tensor,
    key_bias: Tensor | None,
    key_valid: Tensor | None,
    scale: float,
    memory_dtype: torch.dtype,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    heads, num, _ = query.shape
    of_bias = (0,) if key_bias is None else (num, heads, memory.shape[1])
    grad_bias = query.new_empty(of_bias, dtype=torch.float32)
    return query.new_empty(query.shape), memory.new_empty(memory.shape, dtype=memory_dtype), grad_bias


register(launcher_of(kernel, "row_attention_fwd"), _fake_fwd)
register(launcher_of(kernel, "row_attention_bwd"), _fake_bwd)
