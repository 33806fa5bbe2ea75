"""Mask-conditioned attention (Eq. 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.backend import Op

try:
    from pps_fast.kernels import masked_attention as kernel
except ModuleNotFoundError as error:
    if error.name != "triton":
        raise
    kernel = None

_FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MAX_LENGTH = 512
_MAX_HEAD_DIM = 128

_library = torch.library.Library("pps_fast", "FRAGMENT")
_INPUTS = "Tensor query, Tensor key, Tensor value, Tensor? key_mask, Tensor? key_valid, bool causal"
_library.define(f"masked_attention_fwd({_INPUTS}) -> (Tensor, Tensor)")
_library.define(f"masked_attention_bwd(Tensor grad, {_INPUTS}, Tensor[] results) -> (Tensor, Tensor, Tensor, Tensor)")
if kernel is not None:
    for _device in ("CPU", "CUDA"):
        _library.impl("masked_attention_fwd", kernel.masked_attention_fwd, _device)
        _library.impl("masked_attention_bwd", kernel.masked_attention_bwd, _device)


def _like_heads(x: Tensor) -> Tensor:
    """A result of x's shape, laid out as the kernels do."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


@torch.library.register_fake("pps_fast::masked_attention_fwd")
def _fake_fwd(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, key_valid: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    return _like_heads(query), query.new_empty(query.shape[:3], dtype=torch.float32)


@torch.library.register_fake("pps_fast::masked_attention_bwd")
def _fake_bwd(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    key_valid: Tensor | None,
    causal: bool,
    results: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_keys = 0 if key_mask is None else key.shape[2]
    grad_mask = query.new_empty((query.shape[0], num_keys), dtype=torch.float32)
    return _like_heads(query), _like_heads(key), _like_heads(value), grad_mask


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_mask: Tensor | None,
        key_valid: Tensor | None,
        causal: bool,
    ) -> Tensor:
        out, lse = torch.ops.pps_fast.masked_attention_fwd(query, key, value, key_mask, key_valid, causal)
        ctx.save_for_backward(query, key, value, key_mask, key_valid, out, lse)
        ctx.causal = causal
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, lse = ctx.saved_tensors
        found = torch.ops.pps_fast.masked_attention_bwd(grad, *inputs, ctx.causal, [out, lse])
        key_mask = inputs[3]
        grad_mask = None if key_mask is None else found[3].to(key_mask.dtype)
        return *found[:3], grad_mask, None, None


def _unsupported(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> list[str]:
    """Says why the kernel cannot attend here."""
    if kernel is None:
        return ["triton is not installed"]
    given = {"query": query, "key": key, "value": value, "key_mask": key_mask, "key_valid": key_valid}
    tensors = {name: x for name, x in given.items() if x is not None}
    devices = {str(x.device) for x in tensors.values()}
    reasons = []
    if len(devices) > 1:
        reasons.append(f"the tensors are on {', '.join(sorted(devices))}; the kernel needs one device")
    if not query.is_cuda and not kernel.is_interpreted():
        reasons.append(f"query is on {query.device}; the kernel needs a CUDA device")
    for name, x in tensors.items():
        if name != "key_valid" and x.dtype not in _FUSED_DTYPES:
            reasons.append(f"{name} is {x.dtype}; the kernel computes in float32")
    if not query.dtype == key.dtype == value.dtype:
        reasons.append(f"query is {query.dtype}, key {key.dtype}, value {value.dtype}; the kernel needs one dtype")
    if key_valid is not None and key_valid.dtype != torch.bool:
        reasons.append(f"key_valid is {key_valid.dtype}; the kernel needs torch.bool")
    return reasons + _unsupported_shapes(tensors)


def _unsupported_shapes(tensors: dict[str, Tensor]) -> list[str]:
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    query, key = shapes["query"], shapes["key"]
    if len(query) != 4 or len(key) != 4 or query[:2] != key[:2] or query[3] != key[3] or key != shapes["value"]:
        listed = ", ".join(f"{name} {shapes[name]}" for name in ("query", "key", "value"))
        return [f"shapes are {listed}; the kernel needs [G, H, Q, h], [G, H, T, h] and [G, H, T, h]"]
    reasons = []
    for name in ("key_mask", "key_valid"):
        if name in shapes and shapes[name] != (key[0], key[2]):
            reasons.append(f"{name} has shape {shapes[name]}; the kernel needs [G, T] = {(key[0], key[2])}")
    if not 1 <= query[3] <= _MAX_HEAD_DIM:
        reasons.append(f"the head dimension is {query[3]}; the kernel takes 1 to {_MAX_HEAD_DIM}")
    for name, length in (("queries", query[2]), ("keys", key[2])):
        if not 1 <= length <= _MAX_LENGTH:
            reasons.append(f"there are {length} {name}; the kernel takes 1 to {_MAX_LENGTH}")
    return reasons


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    return _FusedAttention.apply(query, key, value, key_mask, key_valid, causal)


masked_attention = Op(
    "masked_attention",
    torch=equations.masked_attention,
    triton=_fused,
    unsupported=_unsupported,
    is_interpreted=kernel is not None and kernel.is_interpreted(),
)
