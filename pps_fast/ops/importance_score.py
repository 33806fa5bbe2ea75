"""Importance scores of components (Eq. 9): a product and one launch; one launch and two products backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.masked_attention import multiplied_as
from pps_fast.ops.registration import first_order_only, launcher_of, load_kernel, register, runs_kernels
from pps_fast.ops.weights import rounded

kernel = load_kernel("importance_score")

_INNER, _OUTER = range(2)


def _fake_fwd(x: Tensor, outer: Tensor, first: int, num_components: int) -> Tensor:
    return x.new_empty((len(x), num_components), dtype=torch.float32)


def _fake_bwd(sums: Tensor, grad: Tensor, x: Tensor, outer: Tensor, first: int) -> Tensor:
    return x.new_empty(x.shape)


register(launcher_of(kernel, "importance_score_fwd"), _fake_fwd)
register(launcher_of(kernel, "importance_score_bwd"), _fake_bwd, mutates=("sums",))


class _FusedScore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inner: Tensor, outer: Tensor, r_cls: Tensor, first: int, num_components: int) -> Tensor:
        rows = r_cls.to(multiplied_as(r_cls))
        ctx.parameters, ctx.first, ctx.dtype = (inner, outer), first, r_cls.dtype
        x = F.linear(rows, rounded(inner, rows.dtype))
        score = torch.ops.pps_fast.importance_score_fwd(x, outer, first, num_components)
        # the result is saved for `first_order_only` alone
        ctx.save_for_backward(rows, x, score)
        return score

    @staticmethod
    @first_order_only("importance scores")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, x, _ = ctx.saved_tensors
        (inner, outer), sums = ctx.parameters, GradientSums(ctx)
        grad_x = torch.ops.pps_fast.importance_score_bwd(sums.scratch(_OUTER), grad, x, outer, ctx.first).flatten(0, 1)
        sums.add_weight(_INNER, grad_x, rows.flatten(0, 1))
        grad_rows = (grad_x @ rounded(inner, rows.dtype)).view(rows.shape).to(ctx.dtype)
        return *sums.results(), grad_rows, None, None


def importance_score(
    r_cls: Tensor, inner: Tensor, outer: Tensor, first: int, num_components: int, backend: str
) -> Tensor:
    """Eq. (9) of neighboring components; the others' score is 0.

    Args:
        r_cls: [B, N, D] of components first, ..., first + N - 1.
        inner, outer: [D, D] and [1, D], parameters.
        first: the first of them.
        num_components: E.
        backend: which implementation computes it.
    Returns:
        [B, E], fp32 at least.
    """
    if runs_kernels(r_cls, backend):
        return _FusedScore.apply(inner, outer, r_cls, first, num_components)
    score = equations.importance_score(r_cls, inner, outer)
    return F.pad(score, (first, num_components - first - score.shape[1]))
