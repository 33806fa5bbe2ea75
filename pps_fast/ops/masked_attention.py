"""Mask-conditioned attention (Eq. 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.registration import device_reasons, dtype_reasons, fused_op, load_kernel, register

kernel = load_kernel("masked_attention")

_MAX_LENGTH = 512
_MAX_HEAD_DIM = 128

_INPUTS = "Tensor query, Tensor key, Tensor value, Tensor? key_bias, Tensor? key_valid, bool causal, bool tf32"


def like_heads(x: Tensor, *shape: int) -> Tensor:
    """An uninitialised result [G, H, n, h] that lies in memory as [G, n, H, h], as the kernels lay it out."""
    num, heads, length, width = shape or x.shape
    return x.new_empty(num, length, heads, width).transpose(1, 2)


def _fake_fwd(query: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return like_heads(query), query.new_empty(query.shape[:3], dtype=torch.float32)


def _fake_bwd(
    results: list[Tensor], query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_keys = 0 if key_bias is None else key.shape[2]
    grad_bias = query.new_empty((query.shape[0], num_keys), dtype=torch.float32)
    return like_heads(query), like_heads(key), like_heads(value), grad_bias


register(
    f"masked_attention_fwd({_INPUTS}) -> (Tensor, Tensor)",
    kernel and kernel.masked_attention_fwd,
    _fake_fwd,
)
register(
    f"masked_attention_bwd(Tensor[] results, {_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    kernel and kernel.masked_attention_bwd,
    _fake_bwd,
)


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, causal, tf32 = inputs
        out, lse = torch.ops.pps_fast.masked_attention_fwd(*inputs)
        ctx.save_for_backward(*tensors, out, lse)
        ctx.flags = (causal, tf32)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, out, lse = ctx.saved_tensors
        found = torch.ops.pps_fast.masked_attention_bwd([grad, out, lse], *tensors, *ctx.flags)
        key_bias = tensors[3]
        grad_bias = None if key_bias is None else found[3].to(key_bias.dtype)
        return *found[:3], grad_bias, None, None, None


# torch.compile cannot trace a function that returns a string; it compiles again when the setting changes
@torch.compiler.assume_constant_result
def allows_tf32() -> bool:
    """Whether products of fp32 matrices may be rounded, by `torch.set_float32_matmul_precision`."""
    return torch.get_float32_matmul_precision() != "highest"


def _unsupported(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> list[str]:
    """Says why the kernel cannot attend here."""
    reasons = operand_reasons(query, key, value, key_bias, key_valid)
    shapes = product_reasons(query, key, value, _MAX_LENGTH)
    return reasons + (shapes or key_reasons("G, T", (key.shape[0], key.shape[2]), bias=key_bias, valid=key_valid))


def operand_reasons(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, key_valid: Tensor | None
) -> list[str]:
    """Says what keeps an attention kernel from reading these tensors: devices and dtypes."""
    reasons = device_reasons(query=query, key=key, value=value, key_bias=key_bias, key_valid=key_valid)
    reasons += dtype_reasons(query=query, key=key, value=value, key_bias=key_bias)
    if not query.dtype == key.dtype == value.dtype:
        reasons.append(f"query is {query.dtype}, key {key.dtype}, value {value.dtype}; the kernel needs one dtype")
    if key_valid is not None and key_valid.dtype != torch.bool:
        reasons.append(f"key_valid is {key_valid.dtype}; the kernel needs torch.bool")
    return reasons


def product_reasons(query: Tensor, key: Tensor, value: Tensor, max_length: int) -> list[str]:
    """Says which shapes of the products' operands an attention kernel does not take."""
    shapes = {"query": tuple(query.shape), "key": tuple(key.shape), "value": tuple(value.shape)}
    is_known = query.dim() == key.dim() == 4 and key.shape == value.shape
    if not is_known or query.shape[:2] != key.shape[:2] or query.shape[3] != key.shape[3]:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        return [f"shapes are {listed}; the kernel needs [G, H, Q, h], [G, H, T, h] and [G, H, T, h]"]
    reasons = []
    if not 1 <= query.shape[3] <= _MAX_HEAD_DIM:
        reasons.append(f"the head dimension is {query.shape[3]}; the kernel takes 1 to {_MAX_HEAD_DIM}")
    for name, length in (("queries", query.shape[2]), ("keys", key.shape[2])):
        if not 1 <= length <= max_length:
            reasons.append(f"there are {length} {name}; the kernel takes 1 to {max_length}")
    return reasons


def key_reasons(axes: str, shape: tuple[int, ...], **tensors: Tensor | None) -> list[str]:
    """Says which of the arguments key_<name> have another shape than [axes]."""
    return [
        f"key_{name} has shape {tuple(x.shape)}; the kernel needs [{axes}] = {shape}"
        for name, x in tensors.items()
        if x is not None and tuple(x.shape) != shape
    ]


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    return _FusedAttention.apply(query, key, value, key_bias, key_valid, causal, allows_tf32())


masked_attention = fused_op("masked_attention", _fused, _unsupported)
