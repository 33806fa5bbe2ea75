"""The contrastive loss of the reconstruction, L_ivc."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import floats
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register, size_reasons

kernel = load_kernel("contrastive_loss")

# one program holds all best proposals of a sample
_MAX_BEST = 64


def _fake_fwd(best: Tensor, whole: Tensor, negative: Tensor, *margins: float) -> Tensor:
    return best.new_empty((), dtype=torch.float32)


def _fake_bwd(grad: Tensor, best: Tensor, whole: Tensor, negative: Tensor, *margins: float) -> tuple[Tensor, ...]:
    return tuple(best.new_empty(x.shape, dtype=torch.float32) for x in (best, whole, negative))


register(launcher_of(kernel, "contrastive_loss_fwd"), _fake_fwd)
register(launcher_of(kernel, "contrastive_loss_bwd"), _fake_bwd)


class _FusedContrastiveLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        loss = torch.ops.pps_fast.contrastive_loss_fwd(*inputs)
        ctx.save_for_backward(*inputs[:3], loss)
        ctx.margins = inputs[3:]
        return loss

    @staticmethod
    @first_order_only("contrastive_loss")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, _ = ctx.saved_tensors
        grads = torch.ops.pps_fast.contrastive_loss_bwd(grad, *inputs, *ctx.margins)
        return *(value.to(x.dtype) for value, x in zip(grads, inputs, strict=True)), None, None


def _limits(best_nll: Tensor, **_: Any) -> list[str]:
    """Says which number of best proposals the kernel does not take."""
    return size_reasons("best_nll", "proposals", best_nll.shape[1], _MAX_BEST)


def _fused(
    best_nll: Tensor, whole_video_nll: Tensor, negative_nll: Tensor, whole_video_margin: float, negative_margin: float
) -> Tensor:
    margins = float(whole_video_margin), float(negative_margin)
    return _FusedContrastiveLoss.apply(best_nll, whole_video_nll, negative_nll, *margins)


contrastive_loss = fused_op(
    equations.contrastive_loss,
    _fused,
    {"best_nll": floats("B n"), "whole_video_nll": floats("B"), "negative_nll": floats("B n J")},
    _limits,
)
