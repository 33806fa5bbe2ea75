"""The sub-layers of the transformer's blocks with backward passes of their own, over our kernels and plain products.

    y = LN(x + dropout(f(x))),   f = self-attention, cross-attention (`ops/attention_sublayers.py`), or W2 relu(W1 x)

They compute what the modules in `encoder/transformer.py` compute, with fewer calls. Products read weights that were
rounded once per update (`ops/weights.py`); gradients of weights are accumulated by the products themselves, those of
biases by the kernels that see the gradients anyway; the gradient that reaches x through f is added by a product to the
one that goes past f.

Letters: R rows of all sequences, [R, D] = [G * n, D].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.masked_attention import multiplied_as
from pps_fast.ops.registration import first_order_only
from pps_fast.ops.weights import rounded
from pps_fast.randomness import num_dropped_levels

_ops: Any = torch.ops.pps_fast
# positions of a sub-layer's parameters, which are its first arguments: of the layers before and behind the attention or
# the ReLU, and of the norm
IN_WEIGHT, IN_BIAS, OUT_WEIGHT, OUT_BIAS, NORM_WEIGHT, NORM_BIAS = range(6)
NUM_PARAMETERS = 6


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
        places: [G] position of each sequence's first row, or `Ragged.place` of ragged rows; 0 when not given.
    """

    dropout_key: Tensor | None
    site: int
    rate: float
    places: Tensor | None = None

    @property
    def arguments(self) -> tuple[Tensor | None, list[int], Tensor | None]:
        """What the kernels take."""
        num_dropped = num_dropped_levels(self.rate)
        return self.dropout_key if num_dropped else None, [self.site, num_dropped], self.places


def flat(x: Tensor) -> Tensor:
    """[..., D] -> [R, D]."""
    return x.reshape(-1, x.shape[-1])


def linear(ctx: Any, x: Tensor, index: int, rows: slice = slice(None)) -> Tensor:
    """The layer whose weight is the sub-layer's parameter `index` and whose bias is the next, or rows of it."""
    weight, bias = (rounded(ctx.parameters[number], x.dtype)[rows] for number in (index, index + 1))
    return F.linear(x, weight, bias)


def end(ctx: Any, x: Tensor, branch: Tensor, dropout: Dropout, num: int, *saved: Tensor | None) -> Tensor:
    """Returns LN(x + dropout(branch)) and saves what the backward pass needs: `saved`, and what the norm leaves.

    Args:
        x, branch: [num, n, D], or [num / N, n, D] where N sequences in a row are alike.
        num: of sequences of the result, or of masks of ragged rows.
    """
    norm = ctx.parameters[NORM_WEIGHT:]
    out, *left = _ops.residual_norm_fwd(x, branch, *norm, *dropout.arguments, equations.NORM_EPS, num)
    # the result is saved for `first_order_only` alone; the next sub-layer holds it in any case
    ctx.save_for_backward(*saved, *left, out)
    ctx.dropout, ctx.branch_dtype = dropout, branch.dtype
    return out


def begin_backward(ctx: Any, sums: GradientSums, grad: Tensor, left: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the gradients of x past the branch, and of the branch; adds those of the norm and the branch's bias."""
    wanted = [sums.scratch(index) for index in (NORM_WEIGHT, NORM_BIAS, OUT_BIAS)]
    weight = ctx.parameters[NORM_WEIGHT]
    return _ops.residual_norm_bwd_into(wanted, grad, weight, *ctx.dropout.arguments, left, ctx.branch_dtype)


def add_product(total: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Returns total + grad @ weight, in total's shape and dtype, and in its memory where the dtypes are one."""
    if total.dtype != grad.dtype:
        return total + (grad @ weight).view(total.shape)
    total.view(-1, total.shape[-1]).addmm_(grad, weight)
    return total


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.parameters, (x, dropout) = inputs[:NUM_PARAMETERS], inputs[NUM_PARAMETERS:]
        rows = flat(x.to(multiplied_as(x)))
        weight, bias = (rounded(ctx.parameters[index], rows.dtype) for index in (IN_WEIGHT, IN_BIAS))
        hidden = torch._addmm_activation(bias, rows, weight.t())
        branch = linear(ctx, hidden, OUT_WEIGHT).view(x.shape)
        return end(ctx, x, branch, dropout, len(x), rows, hidden)

    @staticmethod
    @first_order_only("masked_attention and residual_norm")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, *left, _ = ctx.saved_tensors
        sums = GradientSums(ctx)
        grad_x, grad_branch = begin_backward(ctx, sums, grad, left)
        grad_branch = flat(grad_branch)
        sums.add_weight(OUT_WEIGHT, grad_branch, hidden)
        grad_hidden = grad_branch @ rounded(ctx.parameters[OUT_WEIGHT], rows.dtype)
        _ops.linear_gradient(grad_hidden, hidden, sums.scratch(IN_BIAS))
        sums.add_weight(IN_WEIGHT, grad_hidden, rows)
        grad_x = add_product(grad_x, grad_hidden, rounded(ctx.parameters[IN_WEIGHT], rows.dtype))
        return *sums.results(), grad_x, None


def feed_forward(x: Tensor, parameters: Parameters, dropout: Dropout) -> Tensor:
    """LN(x + dropout(W2 relu(W1 x + b1) + b2)): [G, n, D] -> [G, n, D]."""
    return _FeedForward.apply(*parameters, x, dropout)
