"""The sub-layers of the transformer's blocks with backward passes of their own, over our kernels and plain products.

    y = LN(x + dropout(f(x))),   f = self-attention, cross-attention, or W2 relu(W1 x)

They compute what the modules in `encoder/transformer.py` compute, with fewer calls. Products read weights that were
rounded once per update (`ops/weights.py`); gradients of weights are accumulated by the products themselves, those of
biases by the kernels that see the gradients anyway; the gradient that reaches x through f is added by a product to the
one that goes past f; attention reads and writes packed projections.

Letters: R rows of all sequences, [R, D] = [G * n, D].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.masked_attention import allows_tf32, multiplied_as
from pps_fast.ops.registration import first_order_only
from pps_fast.ops.weights import rounded
from pps_fast.randomness import num_dropped_levels

_ops: Any = torch.ops.pps_fast
# positions of a sub-layer's parameters, which are its first arguments: of the layers before and behind the attention or
# the ReLU, and of the norm
_IN_WEIGHT, _IN_BIAS, _OUT_WEIGHT, _OUT_BIAS, _NORM_WEIGHT, _NORM_BIAS = range(6)
_NUM_PARAMETERS = 6


class Parameters(NamedTuple):
    """Parameters of a sub-layer, in the order of its autograd function's arguments.

    Attributes:
        in_weight, in_bias: of the layer before the attention or the ReLU: query, key and value packed, or W1.
        out_weight, out_bias: of the layer behind it, D values wide.
        norm_weight, norm_bias: of the norm, [D].
    """

    in_weight: Tensor
    in_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor


class Dropout(NamedTuple):
    """Dropout of a sub-layer's branch, as `equations.residual_norm` has it.

    Attributes:
        dropout_key: [G] int32 of the sequences; None for no dropout.
        site: number of the dropout site.
        rate: of values that are dropped.
        first_row: [G] position of each sequence's first row; 0 when not given.
    """

    dropout_key: Tensor | None
    site: int
    rate: float
    first_row: Tensor | None = None

    @property
    def arguments(self) -> tuple[Tensor | None, list[int], Tensor | None]:
        """What the kernels take."""
        num_dropped = num_dropped_levels(self.rate)
        return self.dropout_key if num_dropped else None, [self.site, num_dropped], self.first_row


def _flat(x: Tensor) -> Tensor:
    """[..., D] -> [R, D]."""
    return x.reshape(-1, x.shape[-1])


def _heads(packed: Tensor, num_parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """Views of a packed projection, [G, n, parts * D] -> parts of [G, H, n, h]."""
    parts = packed.unflatten(-1, (num_parts, num_heads, -1)).unbind(-3)
    return tuple(part.transpose(-3, -2) for part in parts)


def _linear(ctx: Any, x: Tensor, index: int, rows: slice = slice(None)) -> Tensor:
    """The layer whose weight is the sub-layer's parameter `index` and whose bias is the next, or rows of it."""
    weight, bias = (rounded(ctx.parameters[number], x.dtype)[rows] for number in (index, index + 1))
    return F.linear(x, weight, bias)


def _end(ctx: Any, x: Tensor, branch: Tensor, dropout: Dropout, *saved: Tensor | None) -> Tensor:
    """Returns LN(x + dropout(branch)) and saves what the backward pass needs: `saved`, and what the norm leaves."""
    norm = ctx.parameters[_NORM_WEIGHT:]
    out, *left = _ops.residual_norm_fwd(x, branch, *norm, *dropout.arguments, equations.NORM_EPS)
    # the result is saved for `first_order_only` alone; the next sub-layer holds it in any case
    ctx.save_for_backward(*saved, *left, out)
    ctx.dropout, ctx.branch_dtype = dropout, branch.dtype
    return out


def _begin_backward(ctx: Any, sums: GradientSums, grad: Tensor, left: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the gradients of x past the branch, and of the branch; adds those of the norm and the branch's bias."""
    wanted = [sums.scratch(index) for index in (_NORM_WEIGHT, _NORM_BIAS, _OUT_BIAS)]
    weight = ctx.parameters[_NORM_WEIGHT]
    return _ops.residual_norm_bwd_into(wanted, grad, weight, *ctx.dropout.arguments, left, ctx.branch_dtype)


def _add_product(total: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Returns total + grad @ weight, in total's shape and dtype, and in its memory where the dtypes are one."""
    if total.dtype != grad.dtype:
        return total + (grad @ weight).view(total.shape)
    _flat(total).addmm_(grad, weight)
    return total


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.parameters, (x, dropout) = inputs[:_NUM_PARAMETERS], inputs[_NUM_PARAMETERS:]
        rows = _flat(x.to(multiplied_as(x)))
        weight, bias = (rounded(ctx.parameters[index], rows.dtype) for index in (_IN_WEIGHT, _IN_BIAS))
        hidden = torch._addmm_activation(bias, rows, weight.t())
        branch = _linear(ctx, hidden, _OUT_WEIGHT).view(x.shape)
        return _end(ctx, x, branch, dropout, rows, hidden)

    @staticmethod
    @first_order_only("masked_attention and residual_norm")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, *left, _ = ctx.saved_tensors
        sums = GradientSums(ctx)
        grad_x, grad_branch = _begin_backward(ctx, sums, grad, left)
        grad_branch = _flat(grad_branch)
        sums.add_weight(_OUT_WEIGHT, grad_branch, hidden)
        grad_hidden = grad_branch @ rounded(ctx.parameters[_OUT_WEIGHT], rows.dtype)
        _ops.linear_gradient(grad_hidden, hidden, sums.scratch(_IN_BIAS))
        sums.add_weight(_IN_WEIGHT, grad_hidden, rows)
        grad_x = _add_product(grad_x, grad_hidden, rounded(ctx.parameters[_IN_WEIGHT], rows.dtype))
        return *sums.results(), grad_x, None


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.parameters = inputs[:_NUM_PARAMETERS]
        x, key_bias, key_valid, num_heads, num_masks, dropout = inputs[_NUM_PARAMETERS:]
        # torch multiplies rows apart from each other by a copy of the weight for each sequence
        rows = x.to(multiplied_as(x)).contiguous()
        packed = _linear(ctx, rows, _IN_WEIGHT)
        # masks share scores where they condition this attention, and all of it where they do not
        ctx.is_shared, ctx.is_repeated = num_masks is not None and key_bias is not None, num_masks is not None
        attend = _ops.shared_attention_fwd if ctx.is_shared else _ops.masked_attention_fwd
        ctx.num_heads, ctx.num_masks, ctx.tf32 = num_heads, num_masks, allows_tf32()
        out, lse = attend(*_heads(packed, 3, num_heads), key_bias, key_valid, True, ctx.tf32)
        branch = _linear(ctx, out.transpose(-3, -2).flatten(-2), _OUT_WEIGHT)
        if ctx.is_repeated:
            x = x.repeat_interleave(num_masks, 0)
            branch = branch.flatten(0, 1) if ctx.is_shared else branch.repeat_interleave(num_masks, 0)
        return _end(ctx, x, branch, dropout, rows, packed, key_bias, key_valid, out, lse)

    @staticmethod
    @first_order_only("masked_attention and residual_norm")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, packed, key_bias, key_valid, out, lse, *left, _ = ctx.saved_tensors
        sums = GradientSums(ctx)
        grad_x, grad_branch = _begin_backward(ctx, sums, grad, left)
        if ctx.is_repeated:
            grad_x = grad_x.unflatten(0, (-1, ctx.num_masks)).sum(1)
            if not ctx.is_shared:
                grad_branch = grad_branch.unflatten(0, (-1, ctx.num_masks)).sum(1)
        grad_out = _through_out_layer(ctx, sums, grad_branch, out)
        projected, others = _heads(packed, 3, ctx.num_heads), (key_bias, key_valid, True, ctx.tf32)
        if ctx.is_shared:
            *parts, grad_bias = _ops.shared_attention_bwd([grad_out, lse], *projected, *others)
            grad_packed = torch.cat([part.transpose(1, 2).flatten(2) for part in parts], -1)
        else:
            grad_packed = torch.empty_like(packed)
            parts = list(_heads(grad_packed, 3, ctx.num_heads))
            grad_bias = _ops.masked_attention_bwd_into(parts, [grad_out, out, lse], list(projected), *others)
        grad_packed = _flat(grad_packed)
        sums.add_bias(_IN_BIAS, grad_packed)
        sums.add_weight(_IN_WEIGHT, grad_packed, _flat(rows))
        grad_x = _add_product(grad_x, grad_packed, rounded(ctx.parameters[_IN_WEIGHT], rows.dtype))
        grad_bias = None if key_bias is None else grad_bias.to(key_bias.dtype)
        return *sums.results(), grad_x, grad_bias, None, None, None, None


def _through_out_layer(ctx: Any, sums: GradientSums, grad_branch: Tensor, out: Tensor) -> Tensor:
    """Returns the gradient of the attention's result out [..., H, n, h], and adds that of the layer behind it."""
    attended = out.transpose(-3, -2)  # [..., n, H, h]
    grad = _flat(grad_branch)
    sums.add_weight(_OUT_WEIGHT, grad, _flat(attended.flatten(-2)))
    product = grad @ rounded(ctx.parameters[_OUT_WEIGHT], grad.dtype)
    return product.view(attended.shape).transpose(-3, -2)


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.parameters = inputs[:_NUM_PARAMETERS]
        x, memory, key_bias, key_valid, num_heads, dropout, ctx.index = inputs[_NUM_PARAMETERS:]
        x = memory.gather(1, ctx.index) if x is None else x
        ctx.num_heads, ctx.tf32, ctx.memory_dtype = num_heads, allows_tf32(), memory.dtype
        ctx.of_query, ctx.of_keys = slice(x.shape[-1]), slice(x.shape[-1], None)
        rows, memory = x.to(multiplied_as(x)), memory.to(multiplied_as(x))
        query, packed = _linear(ctx, rows, _IN_WEIGHT, ctx.of_query), _linear(ctx, memory, _IN_WEIGHT, ctx.of_keys)
        tensors = (*_heads(query, 1, num_heads), *_heads(packed, 2, num_heads), key_bias, key_valid)
        out, lse = _ops.masked_attention_fwd(*tensors, False, ctx.tf32)
        branch = _linear(ctx, out.transpose(1, 2).flatten(2), _OUT_WEIGHT)
        return _end(ctx, x, branch, dropout, rows, memory, query, packed, key_bias, key_valid, out, lse)

    @staticmethod
    @first_order_only("masked_attention and residual_norm")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, memory, query, packed, key_bias, key_valid, out, lse, *left, _ = ctx.saved_tensors
        sums = GradientSums(ctx)
        grad_x, grad_branch = _begin_backward(ctx, sums, grad, left)
        grad_out = _through_out_layer(ctx, sums, grad_branch, out)
        grad_query, grad_packed = torch.empty_like(query), torch.empty_like(packed)
        parts = [*_heads(grad_query, 1, ctx.num_heads), *_heads(grad_packed, 2, ctx.num_heads)]
        projected = [*_heads(query, 1, ctx.num_heads), *_heads(packed, 2, ctx.num_heads)]
        others = (key_bias, key_valid, False, ctx.tf32)
        grad_bias = _ops.masked_attention_bwd_into(parts, [grad_out, out, lse], projected, *others)
        grad_query, grad_packed = _flat(grad_query), _flat(grad_packed)
        for part, x, chosen in ((grad_query, rows, ctx.of_query), (grad_packed, memory, ctx.of_keys)):
            sums.add_bias(_IN_BIAS, part, chosen)
            sums.add_weight(_IN_WEIGHT, part, _flat(x), chosen)
        weight = rounded(ctx.parameters[_IN_WEIGHT], rows.dtype)
        grad_x = _add_product(grad_x, grad_query, weight[ctx.of_query])
        grad_memory = (grad_packed @ weight[ctx.of_keys]).view(memory.shape).to(ctx.memory_dtype)
        if ctx.index is not None:
            # the memory's row is what attends
            grad_memory.scatter_add_(1, ctx.index, grad_x)
        grad_bias = None if key_bias is None else grad_bias.to(key_bias.dtype)
        of_x = grad_x if ctx.index is None else None
        return *sums.results(), of_x, grad_memory, grad_bias, None, None, None, None


def feed_forward(x: Tensor, parameters: Parameters, dropout: Dropout) -> Tensor:
    """LN(x + dropout(W2 relu(W1 x + b1) + b2)): [G, n, D] -> [G, n, D]."""
    return _FeedForward.apply(*parameters, x, dropout)


def self_attention(
    x: Tensor,
    parameters: Parameters,
    dropout: Dropout,
    keys: tuple[Tensor | None, Tensor | None],
    num_heads: int,
    num_masks: int | None = None,
) -> Tensor:
    """LN(x + dropout(causal self-attention of x)), or of x repeated once per mask.

    Args:
        x: [G, n, D]; [B, n, D] with `num_masks`.
        keys: log of the mask that weights the rows of x, [G, n], or [B, N, n] with `num_masks`, or None; and which rows
            are valid, [G, n] or [B, n] bool, or None.
        num_masks: N; the sequences that `dropout` is of are then B * N.
    Returns:
        [G, n, D], or [B * N, n, D].
    """
    return _SelfAttention.apply(*parameters, x, *keys, num_heads, num_masks, dropout)


def cross_attention(
    x: Tensor,
    memory: Tensor,
    parameters: Parameters,
    dropout: Dropout,
    keys: tuple[Tensor | None, Tensor | None],
    num_heads: int,
) -> Tensor:
    """LN(x + dropout(attention from x to memory)): x [G, n, D] and memory [G, T, D] -> [G, n, D].

    Args:
        keys: log of the mask that weights the memory, [G, T] or None; and which of it is valid, [G, T] bool or None.
    """
    return _CrossAttention.apply(*parameters, x, memory, *keys, num_heads, dropout, None)


def self_attention_of_row(
    x: Tensor,
    row: Tensor,
    parameters: Parameters,
    dropout: Dropout,
    keys: tuple[Tensor | None, Tensor | None],
    num_heads: int,
) -> Tensor:
    """LN(x + dropout(self-attention of x)) at one row of each sequence: x [G, n, D] at row [G] -> [G, 1, D].

    Args:
        keys: as of `cross_attention`, with x as its memory; the keys behind the row are not valid.
    """
    index = row[:, None, None].expand(-1, 1, x.shape[-1])
    return _CrossAttention.apply(*parameters, None, x, *keys, num_heads, dropout, index)
