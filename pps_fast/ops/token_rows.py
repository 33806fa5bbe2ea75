"""Projection of rows with a learned token before or behind them: a launch that makes the rows, and their product.

No equation of the paper: it computes what `encoder/embedding.py` computes in parts, with fewer calls. Hidden words are
replaced before the product, by the learned row whose projection replaces theirs.

Letters: G sequences, M rows in each, n rows of the result, C columns.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.masked_attention import multiplied_as
from pps_fast.ops.registration import first_order_only, launcher_of, load_kernel, register
from pps_fast.ops.weights import rounded

kernel = load_kernel("token_rows")

# the first inputs of the autograd function, and how many it has
_WEIGHT, _BIAS, _TOKEN, _HIDDEN = range(4)
_NUM_INPUTS = 9


def _fake_fwd(
    x: Tensor,
    tokens: list[Tensor],
    is_hidden: Tensor | None,
    dropout_key: Tensor | None,
    dropout: list[int],
    rows: list[int],
    dtype: torch.dtype,
) -> Tensor:
    return x.new_empty((len(x), rows[1], x.shape[2]), dtype=dtype)


def _fake_bwd(sums: list[Tensor], grad: Tensor, *others: Any) -> None:
    return None


register(launcher_of(kernel, "token_rows_fwd"), _fake_fwd)
register(launcher_of(kernel, "token_rows_bwd"), _fake_bwd, mutates=("sums",))


class _FusedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        # the learned row is missing where nothing is hidden
        ctx.parameters = [each for each in inputs[: _HIDDEN + 1] if each is not None]
        x, is_hidden, dropout_key, ctx.dropout, ctx.rows = inputs[_HIDDEN + 1 :]
        tokens, dtype = ctx.parameters[_TOKEN:], multiplied_as(x)
        rows = torch.ops.pps_fast.token_rows_fwd(x, tokens, is_hidden, dropout_key, ctx.dropout, ctx.rows, dtype)
        out = F.linear(rows, *(rounded(each, dtype) for each in ctx.parameters[:_TOKEN]))
        # the result is saved for `first_order_only` alone
        ctx.save_for_backward(rows, is_hidden, dropout_key, out)
        return out

    @staticmethod
    @first_order_only("a projection of rows with a token")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, is_hidden, dropout_key, _ = ctx.saved_tensors
        sums, flat, (token_row, _) = GradientSums(ctx), grad.flatten(0, 1).contiguous(), ctx.rows
        sums.add_weight(_WEIGHT, flat, rows.flatten(0, 1))
        sums.add_bias(_BIAS, flat)
        # no rows but those of tokens have gradients
        learned, first_row = (grad[:, token_row], token_row) if is_hidden is None else (flat, 0)
        grad_rows = (learned @ rounded(ctx.parameters[_WEIGHT], rows.dtype)).unflatten(0, (len(grad), -1))
        tokens = [sums.scratch(index) for index in range(_TOKEN, len(ctx.parameters))]
        torch.ops.pps_fast.token_rows_bwd(tokens, grad_rows, is_hidden, dropout_key, ctx.dropout, token_row, first_row)
        results = sums.results()
        return *results, *(None,) * (_NUM_INPUTS - len(results))


def project_rows(
    x: Tensor,
    token: Tensor,
    projection: nn.Linear,
    dropout_key: Tensor | None,
    dropout: list[int],
    rows: tuple[int, int],
    hidden: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Projects rows and a learned token, all dropped, and zeros behind them, on the path of the kernels.

    Args:
        x: [G, M, D], without a gradient.
        token: [D] parameter.
        projection: from D to C values.
        dropout_key: [G] int32 of the sequences; None for no dropout.
        dropout: number of the dropout site, and how many of 65,536 levels of a decision drop.
        rows: the token's row, 0 or M, and the number of rows, n.
        hidden: [D] parameter whose projection replaces that of hidden rows, and which these are, [G, M] bool.
    Returns:
        [G, n, C].
    """
    learned, is_hidden = (None, None) if hidden is None else hidden
    parameters = projection.weight, projection.bias, token, learned
    return _FusedRows.apply(*parameters, x, is_hidden, dropout_key if dropout[1] else None, dropout, list(rows))
