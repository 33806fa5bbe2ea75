"""Label-smoothed cross-entropy of the reconstructed sentence, C(.)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.contract import booleans, exactly, floats
from pps_fast.ops.registration import first_order_only, fused_op, launcher_of, load_kernel, register, size_reasons

kernel = load_kernel("reconstruction_nll")

# a kernel counts classes in 32 bits, launches samples and masks along axes of 16 bits, and adds up a sentence in one
# program
_LIMITS = {"samples": 65535, "masks": 65535, "words": 1024, "classes": 2**30}


def _fake_fwd(
    logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    num_samples, num_columns = targets.shape
    nll, word = (num_samples, logits.shape[-3]), (num_samples, logits.shape[-3], num_columns)
    per_mask, peak, log_sum = (logits.new_empty(shape, dtype=torch.float32) for shape in (nll, word, word))
    return per_mask, peak, log_sum


def _fake_bwd(grad: Tensor, logits: Tensor, *others: Any) -> Tensor:
    # nothing is registered where there is no kernel
    return torch.empty_like(logits) if kernel is None else kernel.like_rows(logits)


register(launcher_of(kernel, "reconstruction_nll_fwd"), _fake_fwd)
register(launcher_of(kernel, "reconstruction_nll_bwd"), _fake_bwd)


class _FusedNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float, start: Tensor | None
    ) -> Tensor:
        nll, peak, log_sum = torch.ops.pps_fast.reconstruction_nll_fwd(logits, targets, is_target, smoothing, start)
        ctx.save_for_backward(logits, targets, is_target, peak, log_sum, start)
        ctx.smoothing = smoothing
        return nll

    @staticmethod
    @first_order_only("reconstruction_nll")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets, is_target, peak, log_sum, start = ctx.saved_tensors
        inputs = (logits, targets, is_target, ctx.smoothing, peak, log_sum, start)
        return torch.ops.pps_fast.reconstruction_nll_bwd(grad, *inputs), None, None, None, None


def _limits(logits: Tensor, **_: Any) -> list[str]:
    """Says which sizes the kernel does not take."""
    reasons = []
    for (what, limit), size in zip(_LIMITS.items(), logits.shape, strict=True):
        reasons += size_reasons("logits", what, size, limit)
    return reasons


def _fused(logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float) -> Tensor:
    return _FusedNll.apply(logits, targets, is_target, float(smoothing), None)


def ragged_nll(logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float, start: Tensor) -> Tensor:
    """`reconstruction_nll` of logits [N, R, V] of ragged rows, which lie where `Ragged.start` tells; kernels alone."""
    return _FusedNll.apply(logits, targets, is_target, float(smoothing), start)


reconstruction_nll = fused_op(
    equations.reconstruction_nll,
    _fused,
    {"logits": floats("B N L V"), "targets": exactly(torch.int64, "B L"), "is_target": booleans("B L")},
    _limits,
)
