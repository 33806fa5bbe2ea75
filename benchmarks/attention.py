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
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast.encoder import fused_stack, transformer
from pps_fast.equations import HIDDEN_SCORE

AttentionName = Literal["ours", "sdpa", "flex"]


@contextmanager
def attention(name: AttentionName, compiler: Callable[..., Any] | None = None) -> Iterator[None]:
    """Makes the transformer attend by `name` inside the block; a step captured in it keeps what it captured.

    Args:
        compiler: makes the function that calls FlexAttention fast; torch.compile for fixed shapes without one.
    """
    functions: dict[str, Callable[..., Tensor]] = {}
    if name == "sdpa":
        functions = {"masked_attention": sdpa_masked, "shared_attention": sdpa_shared}
    elif name == "flex":
        functions = _flex_functions(compiler or partial(torch.compile, dynamic=False))
    if not functions:
        yield
        return
    # fused sub-layers have their attention inside
    with patch.multiple(transformer, **functions), patch.object(fused_stack, "serves", lambda *arguments: False):
        yield


def additive_mask(query: Tensor, key: Tensor, bias: Tensor | None, valid: Tensor | None, causal: bool) -> Tensor:
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
    mask = additive_mask(query, key, key_bias, key_valid, causal)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def flex_masked(
    attend: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    causal: bool = False,
    backend: str = "auto",
) -> Tensor:
    """`masked_attention` by FlexAttention (`attend`) with a score_mod.

    Block masks together with it give NaN for lengths that are no multiple of 128 (torch #153799).
    """

    def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if key_bias is not None:
            score = score + key_bias[b, j]
        if key_valid is not None:
            score = torch.where(key_valid[b, j], score, HIDDEN_SCORE)
        return torch.where(i >= j, score, HIDDEN_SCORE) if causal else score

    return attend(query, key, value, score_mod=score_mod)


def for_each_mask(x: Tensor, num_masks: int) -> Tensor:
    """[B, ...] -> [B N, ...]: every mask of a sample has the sample's own values."""
    return x.unsqueeze(1).expand(-1, num_masks, *x.shape[1:]).flatten(0, 1)


def under_each_mask(
    attend: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    key_valid: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """`shared_attention` by a `masked_attention`: every mask is a sequence of its own, [B, N, H, Q, h]."""
    num_masks = key_bias.shape[1]
    tensors = [for_each_mask(x, num_masks) for x in (query, key, value)]
    valid = None if key_valid is None else for_each_mask(key_valid, num_masks)
    attended = attend(*tensors, key_bias=key_bias.flatten(0, 1), key_valid=valid, **options)
    return attended.unflatten(0, (-1, num_masks))


sdpa_shared = partial(under_each_mask, sdpa_masked)


def flex_functions() -> dict[str, Callable[..., Tensor]]:
    """Returns `masked_attention` and `shared_attention` by FlexAttention, uncompiled, by name.

    Raises:
        ImportError: where torch has none.
    """
    from torch.nn.attention.flex_attention import flex_attention

    masked = partial(flex_masked, flex_attention)
    return {"masked_attention": masked, "shared_attention": partial(under_each_mask, masked)}


def _flex_functions(compiler: Callable[..., Any]) -> dict[str, Callable[..., Tensor]]:
    """The same, compiled, with SDPA where there is no mask."""
    functions = {name: compiler(function) for name, function in flex_functions().items()}

    def masked(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None, **others: Any) -> Tensor:
        attend = sdpa_masked if key_bias is None else functions["masked_attention"]
        return attend(query, key, value, key_bias=key_bias, **others)

    return {**functions, "masked_attention": masked}
