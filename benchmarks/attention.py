"""Our model with another attention in place of its two attention ops: SDPA, or FlexAttention where there is a mask.

`attention("sdpa")` puts functions of the ops' signature where the transformer looks the ops up, and takes them away at
the end of the block; nothing in pps_fast knows of it. What torch's attention needs beside the op's inputs (one additive
mask with causal order and padding folded in) is made in every call, as a model built on it would have to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.opponents import flex, flex_by_sample, repeated
from pps_fast.encoder import transformer
from pps_fast.equations import HIDDEN_SCORE

AttentionName = Literal["ours", "sdpa", "flex"]


@contextmanager
def attention(name: AttentionName, compiler: Callable[..., Any] | None = None) -> Iterator[None]:
    """Makes the transformer attend by `name` inside the block; a step captured in it keeps what it captured.

    Args:
        compiler: makes the function that calls FlexAttention fast; torch.compile for fixed shapes without one.
    """
    if name == "ours":
        yield
        return
    ops = ("masked_attention", "shared_attention")
    before = {op: getattr(transformer, op) for op in ops}
    functions = (sdpa_masked, sdpa_shared) if name == "sdpa" else _flex_functions(compiler)
    try:
        for op, function in zip(ops, functions, strict=True):
            setattr(transformer, op, function)
        yield
    finally:
        for op, function in before.items():
            setattr(transformer, op, function)


def _additive_mask(query: Tensor, key: Tensor, bias: Tensor | None, valid: Tensor | None, causal: bool) -> Tensor:
    """[G or 1, 1, Q or 1, T] in the dtype of query, which SDPA asks for; differentiable in the bias [G, T]."""
    mask = torch.zeros((), device=query.device) if bias is None else bias[:, None, None, :]
    if valid is not None:
        mask = torch.where(valid[:, None, None, :], mask, HIDDEN_SCORE)
    if causal:
        order = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        mask = torch.where(order, mask, HIDDEN_SCORE)
    return mask.to(query.dtype)


def sdpa_masked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
    backend: str = "auto",
) -> Tensor:
    """`masked_attention` by torch's scaled dot-product attention, its backend as torch chooses."""
    if key_bias is None and key_valid is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    mask = _additive_mask(query, key, key_bias, key_valid, causal)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def sdpa_shared(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None = None,
    causal: bool = False,
    backend: str = "auto",
) -> Tensor:
    """`shared_attention` by torch's: every mask is a sequence of its own."""
    valid = None if key_valid is None else key_valid.repeat_interleave(key_bias.shape[1], 0)
    attend = partial(sdpa_masked, key_bias=key_bias.flatten(0, 1), key_valid=valid, causal=causal)
    return repeated(attend, key_bias.flatten(0, 1), query, key, value)


def _flex_functions(compiler: Callable[..., Any] | None) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """`masked_attention` and `shared_attention` by FlexAttention where there is a mask; SDPA elsewhere."""
    from torch.nn.attention.flex_attention import flex_attention

    def one(**inputs: Any) -> Tensor:
        return flex(flex_attention, **inputs)

    def many(**inputs: Any) -> Tensor:
        return flex_by_sample(flex_attention, **inputs)

    fast = compiler or partial(torch.compile, dynamic=False)
    one, many = fast(one), fast(many)

    def hidden(key_valid: Tensor | None) -> Tensor | None:
        return None if key_valid is None else torch.where(key_valid, 0.0, HIDDEN_SCORE)

    def masked(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None, **others: Any) -> Tensor:
        if key_bias is None:
            return sdpa_masked(query, key, value, **others)
        valid = hidden(others["key_valid"])
        return one(
            query=query, key=key, value=value, key_bias=key_bias, causal=others.get("causal", False), hidden=valid
        )

    def shared(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, **others: Any) -> Tensor:
        valid = hidden(others["key_valid"])
        return many(query=query, key=key, value=value, key_bias=key_bias, causal=others["causal"], hidden=valid)

    return masked, shared
