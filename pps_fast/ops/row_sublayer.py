"""The attention sub-layers of a last block of which one row of each sequence is wanted: what `ops/sublayers.py` tells.

One query per sequence is not worth keys and values of the whole memory. Their projections are folded into the query and
the result ("weight absorption"):

    (x W_q) (m W_k)^T = ((x W_q) W_k^T) m^T      p (m W_v) = (p m) W_v

The bias of the keys adds the same to all scores of a query, which the softmax does not see; that of the values is added
once, as shares sum to 1. Nothing behind these sub-layers reads memory or masks, so that their gradients begin here.

Letters: G sequences, H heads of h = D / H values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# registers the operators
import pps_fast.ops.row_attention  # noqa: F401
from pps_fast.ops.attention_sublayers import Chosen
from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.masked_attention import multiplied_as
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


def _rows_of(part: int, width: int) -> slice:
    """Rows of the packed projection's weight: of query, key or value, 0 to 2."""
    return slice(part * width, (part + 1) * width)


def _heads(rows: Tensor, num_heads: int) -> Tensor:
    """[G, D] -> [H, G, h], a view."""
    return rows.unflatten(-1, (num_heads, -1)).transpose(0, 1)


def _of_heads(ctx: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights of the projections to key and value, [H, h, D] each, views."""
    weight = rounded(ctx.parameters[IN_WEIGHT], dtype)
    _, of_key, of_value = weight.view(3, ctx.num_heads, -1, weight.shape[-1]).unbind()
    return of_key, of_value


class _AttentionOfRow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.parameters = inputs[:NUM_PARAMETERS]
        x, memory, key_bias, key_valid, ctx.num_heads, dropout, ctx.index, ctx.start = inputs[NUM_PARAMETERS:]
        if x is None:
            x = memory.view(len(ctx.index), -1, memory.shape[-1]).gather(1, ctx.index).view(-1, 1, memory.shape[-1])
        width, ctx.memory_dtype = x.shape[-1], memory.dtype
        ctx.scale = (width / ctx.num_heads) ** -0.5
        rows, keys = flat(x.to(multiplied_as(x))), memory.to(multiplied_as(x))
        of_key, of_value = _of_heads(ctx, rows.dtype)
        query = linear(ctx, rows, IN_WEIGHT, _rows_of(0, width))
        absorbed = _heads(query, ctx.num_heads) @ of_key  # [H, G, D]
        key_bias = None if key_bias is None else key_bias[:, 0]
        attended, lse = _ops.row_attention_fwd(absorbed, keys, key_bias, key_valid, ctx.scale, ctx.start)
        value_bias = rounded(ctx.parameters[IN_BIAS], rows.dtype)[_rows_of(2, width)]
        values = torch.empty_like(query)
        bias_of_heads = _heads(value_bias.unsqueeze(0), ctx.num_heads)
        torch.baddbmm(bias_of_heads, attended, of_value.mT, out=_heads(values, ctx.num_heads))
        branch = linear(ctx, values, OUT_WEIGHT).view(x.shape)
        saved = (rows, keys, key_bias, key_valid, query, absorbed, attended, lse, values)
        return end(ctx, x, branch, dropout, len(x), *saved)

    @staticmethod
    @first_order_only("masked_attention and residual_norm")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, keys, key_bias, key_valid, query, absorbed, attended, lse, values, *left, _ = ctx.saved_tensors
        sums, width = GradientSums(ctx), rows.shape[-1]
        grad_x, grad_branch = begin_backward(ctx, sums, grad, left)
        grad_branch, (of_key, of_value) = flat(grad_branch), _of_heads(ctx, rows.dtype)
        sums.add_weight(OUT_WEIGHT, grad_branch, values)
        # side by side, so that one launch sums the rows of both
        both = rows.new_empty(len(rows), 2, width)
        grad_query, grad_values = both.unbind(1)
        torch.mm(grad_branch, rounded(ctx.parameters[OUT_WEIGHT], rows.dtype), out=grad_values)
        of_heads = _heads(grad_values, ctx.num_heads)
        results = [of_heads @ of_value, lse]
        arguments = (results, absorbed, keys, key_bias, key_valid, ctx.scale, ctx.memory_dtype, ctx.start)
        grad_absorbed, grad_memory, grad_bias = _ops.row_attention_bwd(*arguments)
        torch.bmm(grad_absorbed, of_key.mT, out=_heads(grad_query, ctx.num_heads))
        sums.add_weight(IN_WEIGHT, grad_query, rows, _rows_of(0, width))
        # used backwards, absorbed = query W_k, where query takes the place of the gradient of the layer's result
        sums.add_weight(IN_WEIGHT, _heads(query, ctx.num_heads), grad_absorbed, _rows_of(1, width))
        sums.add_weight(IN_WEIGHT, of_heads, attended, _rows_of(2, width))
        sums.add_biases(IN_BIAS, both.flatten(1), slice(0, None, 2))
        grad_x = add_product(grad_x, grad_query, rounded(ctx.parameters[IN_WEIGHT], rows.dtype)[_rows_of(0, width)])
        if ctx.index is not None:
            # the memory's row is what attends
            grad_memory.view(len(ctx.index), -1, width).scatter_add_(1, ctx.index, grad_x.view(ctx.index.shape))
        of_x = grad_x if ctx.index is None else None
        grad_bias = None if key_bias is None else grad_bias.to(key_bias.dtype)
        return *sums.results(), of_x, grad_memory, grad_bias, None, None, None, None, None


def cross_attention_of_row(
    x: Tensor, memory: Tensor, parameters: Parameters, dropout: Dropout, keys: Chosen, num_heads: int
) -> Tensor:
    """LN(x + dropout(attention from x to memory)): x [G, 1, D] and memory [G, T, D] -> [G, 1, D].

    Args:
        keys: log of the mask that weights the memory, [G, H, T] or None; and which of it is valid, [G, T] or [G / N, T]
            bool for N sequences alike, or None.
    """
    return _AttentionOfRow.apply(*parameters, x, memory, *keys, num_heads, dropout, None, None)


def self_attention_of_row(
    x: Tensor,
    row: Tensor,
    parameters: Parameters,
    dropout: Dropout,
    keys: Chosen,
    num_heads: int,
    ragged: Ragged | None = None,
) -> Tensor:
    """LN(x + dropout(self-attention of x)) at one row of each sequence: x [G, n, D] at row [G] -> [G, 1, D].

    Args:
        keys: as of `cross_attention_of_row`, with x as its memory; the keys behind the row are not valid.
        ragged: where the rows of x [N, R, D] lie.
    """
    # among the rows of each sequence, or of ragged ones among all
    index = row[:, None, None] if ragged is None else ragged.index_of(row)[None, :, None]
    index, start = index.expand(-1, -1, x.shape[-1]), None if ragged is None else ragged.start
    return _AttentionOfRow.apply(*parameters, None, x, *keys, num_heads, dropout, index, start)
