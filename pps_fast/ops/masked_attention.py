"""Mask-conditioned attention (Eq. 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import booleans, floats
from pps_fast.ops.registration import constant_result, first_order_only, fused_op, launcher_of, load_kernel, register

kernel = load_kernel("masked_attention")

_MAX_LENGTH = 512
_MAX_HEAD_DIM = 128


def like_heads(x: Tensor, *shape: int) -> Tensor:
    """Allocates a result [G, H, n, h] in the memory layout of the kernels, [G, n, H, h]."""
    num, heads, length, width = shape or x.shape
    return x.new_empty(num, length, heads, width).transpose(1, 2)


def _fake_fwd(query: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    shape: tuple[int, ...] = query.shape[:3]
    start = others[6] if len(others) > 6 else None
    if start is not None:
        shape = (len(query) * (len(start) - 1), query.shape[1], others[7])
    return like_heads(query), query.new_empty(shape, dtype=torch.float32)


def _fake_bwd(
    results: list[Tensor], query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_keys = 0 if key_bias is None else key.shape[2]
    grad_bias = query.new_empty((query.shape[0], num_keys), dtype=torch.float32)
    return like_heads(query), like_heads(key), like_heads(value), grad_bias


def _fake_bwd_into(grads: list[Tensor], results: list[Tensor], projected: list[Tensor], *others: Any) -> None:
    return None


register(launcher_of(kernel, "masked_attention_fwd"), _fake_fwd)
register(launcher_of(kernel, "masked_attention_bwd"), _fake_bwd)
register(launcher_of(kernel, "masked_attention_bwd_into"), _fake_bwd_into, mutates=("grads", "projection_bias"))


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, causal, tf32 = inputs
        out, lse = torch.ops.pps_fast.masked_attention_fwd(*inputs)
        ctx.save_for_backward(*tensors, out, lse)
        ctx.flags = (causal, tf32)
        return out

    @staticmethod
    @first_order_only("masked_attention")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, out, lse = ctx.saved_tensors
        grads = torch.ops.pps_fast.masked_attention_bwd([grad, out, lse], *tensors, *ctx.flags)
        key_bias = tensors[3]
        grad_bias = None if key_bias is None else grads[3].to(key_bias.dtype)
        return *grads[:3], grad_bias, None, None, None


# torch.compile cannot trace a function that returns a string; it compiles again when the setting changes
@constant_result
def allows_tf32() -> bool:
    """Whether products of fp32 matrices may be rounded, by `torch.set_float32_matmul_precision`."""
    return torch.get_float32_matmul_precision() != "highest"


def multiplied_as(x: Tensor) -> torch.dtype:
    """Returns the dtype that a matrix product converts x to: autocast's where it is on, else x's."""
    device = x.device.type
    if x.dtype != torch.float64 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def one_dtype(arguments: Mapping[str, Any]) -> str | None:
    """Returns a sentence if query and key have dtypes that cannot be multiplied with each other."""
    query, key = arguments["query"], arguments["key"]
    if query.dtype == key.dtype or multiplied_as(query) == multiplied_as(key):
        return None
    return f"query is {query.dtype}, key {key.dtype}; expected one dtype"


def attention_limits(query: Tensor, key: Tensor, value: Tensor, max_length: int) -> list[str]:
    """Says which sizes, and which dtype of the value, an attention kernel does not take."""
    reasons = []
    if multiplied_as(value) != multiplied_as(query):
        reasons.append(f"value is {value.dtype}, query {query.dtype}; the kernel needs one dtype")
    if query.shape[3] > _MAX_HEAD_DIM:
        reasons.append(f"the head dimension is {query.shape[3]}; the kernel takes 1 to {_MAX_HEAD_DIM}")
    for name, length in (("queries", query.shape[2]), ("keys", key.shape[2])):
        if length > max_length:
            reasons.append(f"there are {length} {name}; the kernel takes 1 to {max_length}")
    return reasons


def _limits(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> list[str]:
    """Says what the kernel does not take."""
    return attention_limits(query, key, value, _MAX_LENGTH)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    query, key, value = (x.to(multiplied_as(x)) for x in (query, key, value))
    return _FusedAttention.apply(query, key, value, key_bias, key_valid, causal, allows_tf32())


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor | None:
    """torch's flash attention, on a CPU for bf16 that needs no gradient: its backward pass and its fp32 are slower."""
    is_bf16 = query.dtype == key.dtype == value.dtype == torch.bfloat16
    if torch.is_grad_enabled() or query.device.type != "cpu" or not is_bf16:
        return None
    shape = (len(query), 1, query.shape[2], key.shape[2])
    bias = torch.zeros((), device=query.device) if key_bias is None else key_bias.float()[:, None, None]
    if key_valid is not None:
        bias = bias.masked_fill(~key_valid[:, None, None], equations.HIDDEN_SCORE)
    if causal:
        future = torch.ones(shape[2:], dtype=torch.bool, device=query.device).triu(1)
        bias = bias.masked_fill(future, equations.HIDDEN_SCORE)
    # autocast would round the bias to bf16
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query, key, value, bias.expand(shape))


masked_attention = fused_op(
    equations.masked_attention,
    _fused,
    {
        "query": floats("G H Q h"),
        "key": floats("G H T h"),
        "value": floats("G H T h"),
        "key_bias": floats("G T"),
        "key_valid": booleans("G T"),
    },
    _limits,
    rule=one_dtype,
    shortcut=_flash,
)
