"""Positions of embedded words, with q_cls in its slot, in one launch.

No equation of the paper: y[b, p] = (q_cls if p = num_words[b] + 1 else x[b, p]) + pe(p).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.linear_gradient import GradientSums
from pps_fast.ops.registration import first_order_only, launcher_of, load_kernel, register, runs_kernels

kernel = load_kernel("word_positions")


def _fake_fwd(x: Tensor, word_cls: Tensor | None, num_words: Tensor | None, table: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _fake_bwd(sums: Tensor, grad: Tensor, num_words: Tensor) -> Tensor:
    return grad.new_empty(grad.shape)


register(launcher_of(kernel, "word_positions_fwd"), _fake_fwd)
register(launcher_of(kernel, "word_positions_bwd"), _fake_bwd, mutates=("sums",))


class _FusedPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, word_cls: Tensor | None, x: Tensor, num_words: Tensor, table: Tensor) -> Tensor:
        ctx.parameters = (word_cls,)
        out = torch.ops.pps_fast.word_positions_fwd(x, word_cls, num_words, table)
        # the result is saved for `first_order_only` alone
        ctx.save_for_backward(num_words, out)
        return out

    @staticmethod
    @first_order_only("positions of words")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        num_words, _ = ctx.saved_tensors
        if ctx.parameters[0] is None:
            return None, grad, None, None
        sums = GradientSums(ctx)
        grad_x = torch.ops.pps_fast.word_positions_bwd(sums.scratch(0), grad, num_words)
        return *sums.results(), grad_x, None, None


def put_word_cls(x: Tensor, word_cls: Tensor, num_words: Tensor) -> Tensor:
    """Puts q_cls, [D] or one row [B, 1, D] of each sentence, at slot num_words[b] + 1 of x [B, n, D]."""
    slot = torch.arange(x.shape[1], device=x.device)
    is_cls = slot == (num_words + 1).unsqueeze(1)
    return torch.where(is_cls.unsqueeze(-1), word_cls.to(x.dtype), x)


def word_positions(x: Tensor, word_cls: Tensor | None, num_words: Tensor | None, table: Tensor, backend: str) -> Tensor:
    """Puts q_cls behind the words and adds positions.

    Args:
        x: [B, n, D] embedded words.
        word_cls: [D] parameter for slot num_words[b] + 1; None for none.
        num_words: [B] int64, with word_cls.
        table: [n, D] pe, fp32 at least.
        backend: which implementation computes it.
    Returns:
        [B, n, D] in x's dtype.
    """
    if runs_kernels(x, backend):
        return _FusedPositions.apply(word_cls, x, num_words, table)
    if word_cls is not None and num_words is not None:
        x = put_word_cls(x, word_cls, num_words)
    return x + table.to(x.dtype)
