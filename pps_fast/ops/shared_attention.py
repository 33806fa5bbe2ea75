"""Mask-conditioned attention of one sequence under several masks (Eq. 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.masked_attention import allows_tf32, key_reasons, like_heads, operand_reasons, product_reasons
from pps_fast.ops.registration import fused_op, load_kernel, register

kernel = load_kernel("shared_attention")

# one tile holds all keys
_MAX_LENGTH = 64

_INPUTS = "Tensor query, Tensor key, Tensor value, Tensor key_bias, Tensor? key_valid, bool causal, bool tf32"


def _fake_fwd(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    num, heads, num_queries, width = query.shape
    out = query.new_empty(num, key_bias.shape[1], num_queries, heads, width).transpose(2, 3)
    return out, query.new_empty(out.shape[:4], dtype=torch.float32)


def _fake_bwd(
    results: list[Tensor], query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_bias = query.new_empty(key_bias.shape, dtype=torch.float32)
    return like_heads(query), like_heads(key), like_heads(value), grad_bias


register(
    f"shared_attention_fwd({_INPUTS}) -> (Tensor, Tensor)",
    kernel and kernel.shared_attention_fwd,
    _fake_fwd,
)
register(
    f"shared_attention_bwd(Tensor[] results, {_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    kernel and kernel.shared_attention_bwd,
    _fake_bwd,
)


class _FusedSharedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, causal, tf32 = inputs
        out, lse = torch.ops.pps_fast.shared_attention_fwd(*inputs)
        ctx.save_for_backward(*tensors, lse)
        ctx.flags = (causal, tf32)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, lse = ctx.saved_tensors
        found = torch.ops.pps_fast.shared_attention_bwd([grad, lse], *tensors, *ctx.flags)
        return *found[:3], found[3].to(tensors[3].dtype), None, None, None


def _unsupported(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> list[str]:
    """Says why the kernel cannot attend here."""
    reasons = operand_reasons(query, key, value, key_bias, key_valid)
    shapes = product_reasons(query, key, value, _MAX_LENGTH)
    if shapes:
        return reasons + shapes
    num, num_keys = key.shape[0], key.shape[2]
    num_masks = key_bias.shape[1] if key_bias.dim() == 3 else 0
    if num_masks == 0:
        return [*reasons, f"key_bias has shape {tuple(key_bias.shape)}; the kernel needs [B, N, T], N at least 1"]
    reasons += key_reasons("B, N, T", (num, num_masks, num_keys), bias=key_bias)
    return reasons + key_reasons("B, T", (num, num_keys), valid=key_valid)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    return _FusedSharedAttention.apply(query, key, value, key_bias, key_valid, causal, allows_tf32())


shared_attention = fused_op("shared_attention", _fused, _unsupported)
