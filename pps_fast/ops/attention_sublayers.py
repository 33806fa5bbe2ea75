"""The attention sub-layers with backward passes of their own: what `ops/sublayers.py` tells, for f an attention.

Attention reads packed projections and writes its gradient packed, and sums the gradient of their bias on the way. What
several sub-layers attend to, and the mask that weights it, goes through them as an input that is also a result: each
backward pass then adds its gradient to that of the sub-layers behind it, in the memory that these wrote.

A mask is given for each head, [G, H, T], all heads alike, because each head adds to a gradient of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.masked_attention import allows_tf32, multiplied_as
from pps_fast.ops.registration import first_order_only
from pps_fast.ops.sublayers import (
    IN_BIAS,
    IN_WEIGHT,
    NUM_PARAMETERS,
    OUT_WEIGHT,
    Dropout,
    Parameters,
    add_product,
    begin_backward,
    end,
    flat,
    linear,
)
from pps_fast.ops.weights import rounded
from pps_fast.ragged import Ragged

_ops: Any = torch.ops.pps_fast
# log of the mask that weights the keys, and which of them are valid
Chosen = tuple[Tensor | None, Tensor | None]


def _heads(packed: Tensor, num_parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """Views of a packed projection, [G, n, parts * D] -> parts of [G, H, n, h]."""
    parts = packed.unflatten(-1, (num_parts, num_heads, -1)).unbind(-3)
    return tuple(part.transpose(-3, -2) for part in parts)


def _rows(ragged: Ragged | None) -> tuple[Tensor | None, int]:
    """Returns where sequences begin and how long the longest is, as the kernels take it."""
    return (None, 0) if ragged is None else (ragged.start, ragged.longest)


def _of_one_head(key_bias: Tensor | None) -> Tensor | None:
    """[G, H, T] -> [G, T], or None."""
    return None if key_bias is None else key_bias[:, 0]


def _bias_buffer(key_bias: Tensor | None, grad: Tensor | None, like: Tensor) -> Tensor:
    """Returns what a kernel writes the gradient of a bias to, or adds it to where there is one already: fp32."""
    if grad is not None:
        return grad.float()
    return like.new_empty((0,) if key_bias is None else key_bias.shape, dtype=torch.float32)


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor | None]:
        ctx.parameters = inputs[:NUM_PARAMETERS]
        x, key_bias, key_valid, num_heads, num_masks, dropout, ragged = inputs[NUM_PARAMETERS:]
        # torch multiplies rows apart from each other by a copy of the weight for each sequence
        rows = x.to(multiplied_as(x)).contiguous()
        packed = linear(ctx, rows, IN_WEIGHT)
        # masks share scores where they condition this attention, and all of it where they do not
        ctx.is_shared, ctx.is_repeated = num_masks is not None and key_bias is not None, num_masks is not None
        ctx.num_heads, ctx.num_masks, ctx.tf32 = num_heads, num_masks, allows_tf32()
        inputs = (*_heads(packed, 3, num_heads), key_bias if ctx.is_shared else _of_one_head(key_bias), key_valid)
        ctx.start, longest = _rows(ragged)
        if ctx.is_shared:
            out, lse = _ops.shared_attention_fwd(*inputs, True, ctx.tf32)
        else:
            out, lse = _ops.masked_attention_fwd(*inputs, True, ctx.tf32, ctx.start, longest)
        branch = linear(ctx, out.transpose(-3, -2).flatten(-2), OUT_WEIGHT)
        branch = branch.flatten(0, 1) if ctx.is_shared else branch
        ctx.set_materialize_grads(False)
        num = len(x) * (num_masks or 1)
        return end(ctx, x, branch, dropout, num, rows, packed, key_bias, key_valid, out, lse), key_bias

    @staticmethod
    @first_order_only("masked_attention and residual_norm")
    def backward(ctx: Any, grad: Tensor, grad_bias: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, packed, key_bias, key_valid, out, lse, *left, _ = ctx.saved_tensors
        sums = GradientSums(ctx)
        grad_x, grad_branch = begin_backward(ctx, sums, grad, left)
        if ctx.is_repeated:
            grad_x = grad_x.unflatten(0, (-1, ctx.num_masks)).sum(1)
            if not ctx.is_shared:
                grad_branch = grad_branch.unflatten(0, (-1, ctx.num_masks)).sum(1)
        grad_out = _through_out_layer(ctx, sums, grad_branch, out)
        grad_packed = torch.empty_like(packed)
        parts, projected = ([*_heads(each, 3, ctx.num_heads)] for each in (grad_packed, packed))
        others: tuple[Any, ...]
        if ctx.is_shared:
            others = (key_bias, key_valid, True, ctx.tf32, sums.scratch(IN_BIAS))
            new = _ops.shared_attention_bwd_into(parts, [grad_out, lse], projected, *others)
            grad_bias = new if grad_bias is None else new + grad_bias
        else:
            adds, grad_bias = grad_bias is not None, _bias_buffer(key_bias, grad_bias, packed)
            others = (_of_one_head(key_bias), key_valid, [True, ctx.tf32, adds], sums.scratch(IN_BIAS))
            _ops.masked_attention_bwd_into([*parts, grad_bias], [grad_out, out, lse], projected, *others, ctx.start)
        grad_packed = flat(grad_packed)
        sums.add_weight(IN_WEIGHT, grad_packed, flat(rows))
        grad_x = add_product(grad_x, grad_packed, rounded(ctx.parameters[IN_WEIGHT], rows.dtype))
        grad_bias = None if key_bias is None else grad_bias.to(key_bias.dtype)
        return *sums.results(), grad_x, grad_bias, None, None, None, None, None


def _through_out_layer(ctx: Any, sums: GradientSums, grad_branch: Tensor, out: Tensor) -> Tensor:
    """Returns the gradient of the attention's result out [..., H, n, h], and adds that of the layer behind it."""
    attended = out.transpose(-3, -2)  # [..., n, H, h]
    grad = flat(grad_branch)
    sums.add_weight(OUT_WEIGHT, grad, flat(attended.flatten(-2)))
    product = grad @ rounded(ctx.parameters[OUT_WEIGHT], grad.dtype)
    return product.view(attended.shape).transpose(-3, -2)


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.parameters = inputs[:NUM_PARAMETERS]
        x, memory, key_bias, key_valid, num_heads, dropout, ragged = inputs[NUM_PARAMETERS:]
        ctx.num_heads, ctx.tf32, ctx.memory_dtype = num_heads, allows_tf32(), memory.dtype
        ctx.of_query, ctx.of_keys = slice(x.shape[-1]), slice(x.shape[-1], None)
        rows, keys = x.to(multiplied_as(x)), memory.to(multiplied_as(x))
        query, packed = linear(ctx, rows, IN_WEIGHT, ctx.of_query), linear(ctx, keys, IN_WEIGHT, ctx.of_keys)
        tensors = (*_heads(query, 1, num_heads), *_heads(packed, 2, num_heads), _of_one_head(key_bias), key_valid)
        ctx.start, longest = _rows(ragged)
        out, lse = _ops.masked_attention_fwd(*tensors, False, ctx.tf32, ctx.start, longest)
        branch = linear(ctx, out.transpose(1, 2).flatten(2), OUT_WEIGHT)
        ctx.set_materialize_grads(False)
        saved = (rows, keys, query, packed, key_bias, key_valid, out, lse)
        return end(ctx, x, branch, dropout, len(x), *saved), memory, key_bias

    @staticmethod
    @first_order_only("masked_attention and residual_norm")
    def backward(
        ctx: Any, grad: Tensor, grad_memory: Tensor | None, grad_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        rows, keys, query, packed, key_bias, key_valid, out, lse, *left, _ = ctx.saved_tensors
        sums = GradientSums(ctx)
        grad_x, grad_branch = begin_backward(ctx, sums, grad, left)
        grad_out = _through_out_layer(ctx, sums, grad_branch, out)
        grad_query, grad_packed = torch.empty_like(query), torch.empty_like(packed)
        adds, grad_bias = grad_bias is not None, _bias_buffer(key_bias, grad_bias, packed)
        parts = [*_heads(grad_query, 1, ctx.num_heads), *_heads(grad_packed, 2, ctx.num_heads), grad_bias]
        projected = [*_heads(query, 1, ctx.num_heads), *_heads(packed, 2, ctx.num_heads)]
        others = (_of_one_head(key_bias), key_valid, [False, ctx.tf32, adds], sums.scratch(IN_BIAS))
        _ops.masked_attention_bwd_into(parts, [grad_out, out, lse], projected, *others, ctx.start)
        grad_query, grad_packed = flat(grad_query), flat(grad_packed)
        for part, x, chosen in ((grad_query, rows, ctx.of_query), (grad_packed, keys, ctx.of_keys)):
            sums.add_weight(IN_WEIGHT, part, flat(x), chosen)
        weight = rounded(ctx.parameters[IN_WEIGHT], rows.dtype)
        grad_x = add_product(grad_x, grad_query, weight[ctx.of_query])
        if grad_memory is None:
            grad_memory = (grad_packed @ weight[ctx.of_keys]).view(keys.shape).to(ctx.memory_dtype)
        else:
            grad_memory = add_product(grad_memory, grad_packed, weight[ctx.of_keys])
        grad_bias = None if key_bias is None else grad_bias.to(key_bias.dtype)
        return *sums.results(), grad_x, grad_memory, grad_bias, None, None, None, None


def self_attention(
    x: Tensor,
    parameters: Parameters,
    dropout: Dropout,
    keys: Chosen,
    num_heads: int,
    num_masks: int | None = None,
    ragged: Ragged | None = None,
) -> tuple[Tensor, Tensor | None]:
    """LN(x + dropout(causal self-attention of x)), or of x repeated once per mask.

    Args:
        x: [G, n, D]; [B, n, D] with `num_masks`.
        keys: log of the mask that weights the rows of x, [G, H, n], or [B, N, n] with `num_masks`, or None; and which
            rows are valid, [G, n] or [G / N, n] bool for N sequences alike, or None.
        num_masks: N; the sequences that `dropout` is of are then B * N.
        ragged: where the rows of x [N, R, D], or [1, R, D] with `num_masks`, lie; keys and dropout are as without it.
    Returns:
        [G, n, D], or [B * N, n, D], or [N, R, D] ragged; and the log of the mask, for the sub-layers behind this one.
    """
    return _SelfAttention.apply(*parameters, x, *keys, num_heads, num_masks, dropout, ragged)


def cross_attention(
    x: Tensor,
    memory: Tensor,
    parameters: Parameters,
    dropout: Dropout,
    keys: Chosen,
    num_heads: int,
    ragged: Ragged | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """LN(x + dropout(attention from x to memory)): x [G, n, D] and memory [G, T, D] -> [G, n, D].

    Args:
        ragged: where the rows of x [N, R, D] lie, which the result then is like.
        keys: log of the mask that weights the memory, [G, H, T] or None; and which of it is valid, [G, T] or [G / N, T]
            bool for N sequences alike, or None.
    Returns:
        the result; memory and log of its mask, for the sub-layers behind this one.
    """
    return _CrossAttention.apply(*parameters, x, memory, *keys, num_heads, dropout, ragged)
