"""Mask-conditioned attention of one sequence under several masks (Eq. 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import booleans, floats
from pps_fast.ops.masked_attention import allows_tf32, attention_limits, like_heads, multiplied_as, one_dtype
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register

kernel = load_kernel("shared_attention")

# one tile holds all keys
_MAX_LENGTH = 64


def _fake_fwd(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    num, heads, num_queries, width = query.shape
    out = query.new_empty(num, key_bias.shape[1], num_queries, heads, width).transpose(2, 3)
    return out, query.new_empty(out.shape[:4], dtype=torch.float32)


def _fake_bwd(
    results: list[Tensor], query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_bias = query.new_empty(key_bias.shape, dtype=torch.float32)
    return like_heads(query), like_heads(key), like_heads(value), grad_bias


def _fake_bwd_into(
    grads: list[Tensor], results: list[Tensor], projected: list[Tensor], key_bias: Tensor, *others: Any
) -> Tensor:
    return key_bias.new_empty(key_bias.shape, dtype=torch.float32)


register(launcher_of(kernel, "shared_attention_fwd"), _fake_fwd)
register(launcher_of(kernel, "shared_attention_bwd"), _fake_bwd)
register(launcher_of(kernel, "shared_attention_bwd_into"), _fake_bwd_into, mutates=("grads", "projection_bias"))


class _FusedSharedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, causal, tf32 = inputs
        out, lse = torch.ops.pps_fast.shared_attention_fwd(*inputs)
        ctx.save_for_backward(*tensors, lse)
        ctx.flags = (causal, tf32)
        return out

    @staticmethod
    @first_order_only("shared_attention")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, lse = ctx.saved_tensors
        grads = torch.ops.pps_fast.shared_attention_bwd([grad, lse], *tensors, *ctx.flags)
        return *grads[:3], grads[3].to(tensors[3].dtype), None, None, None


def _limits(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> list[str]:
    """Says what the kernel does not take."""
    return attention_limits(query, key, value, _MAX_LENGTH)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    query, key, value = (x.to(multiplied_as(x)) for x in (query, key, value))
    return _FusedSharedAttention.apply(query, key, value, key_bias, key_valid, causal, allows_tf32())


shared_attention = fused_op(
    equations.shared_attention,
    _fused,
    {
        "query": floats("B H Q h"),
        "key": floats("B H T h"),
        "value": floats("B H T h"),
        "key_bias": floats("B N T"),
        "key_valid": booleans("B T"),
    },
    _limits,
    rule=one_dtype,
)
