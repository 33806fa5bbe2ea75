"""Label-smoothed cross-entropy of the reconstructed sentence, C(.)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.registration import (
    device_reasons,
    dtype_reasons,
    fused_op,
    load_kernel,
    register,
    shape_reasons,
    size_reasons,
)

kernel = load_kernel("reconstruction_nll")

# a kernel counts classes in 32 bits, launches samples and masks along axes of 16 bits, and adds up a sentence in one
# program
_LIMITS = {"samples": 65535, "masks": 65535, "words": 1024, "classes": 2**30}


def _fake_fwd(logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    nll, word = logits.shape[:2], logits.shape[:3]
    made = [logits.new_empty(shape, dtype=torch.float32) for shape in (nll, word, word)]
    return made[0], made[1], made[2]


def _fake_bwd(grad: Tensor, logits: Tensor, *others: Any) -> Tensor:
    return logits.new_empty(logits.shape)


register(
    "reconstruction_nll_fwd(Tensor logits, Tensor targets, Tensor is_target, float smoothing)"
    " -> (Tensor, Tensor, Tensor)",
    kernel and kernel.reconstruction_nll_fwd,
    _fake_fwd,
)
register(
    "reconstruction_nll_bwd(Tensor grad, Tensor logits, Tensor targets, Tensor is_target, float smoothing, Tensor peak,"
    " Tensor log_sum) -> Tensor",
    kernel and kernel.reconstruction_nll_bwd,
    _fake_bwd,
)


class _FusedNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float) -> Tensor:
        nll, peak, log_sum = torch.ops.pps_fast.reconstruction_nll_fwd(logits, targets, is_target, smoothing)
        ctx.save_for_backward(logits, targets, is_target, peak, log_sum)
        ctx.smoothing = smoothing
        return nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets, is_target, peak, log_sum = ctx.saved_tensors
        inputs = (logits, targets, is_target, ctx.smoothing)
        return torch.ops.pps_fast.reconstruction_nll_bwd(grad, *inputs, peak, log_sum), None, None, None


def _unsupported(logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float) -> list[str]:
    """Says why the kernel cannot score these sentences."""
    reasons = device_reasons(logits=logits, targets=targets, is_target=is_target)
    reasons += dtype_reasons(logits=logits) + shape_reasons(4, logits=logits)
    for name, x, dtype in (("targets", targets, torch.int64), ("is_target", is_target, torch.bool)):
        if x.dtype != dtype:
            reasons.append(f"{name} is {x.dtype}; the kernel needs {dtype}")
        if logits.dim() == 4 and x.shape != (logits.shape[0], logits.shape[2]):
            expected = (logits.shape[0], logits.shape[2])
            reasons.append(f"{name} has shape {tuple(x.shape)}; the kernel needs [B, L] = {expected}")
    if not reasons:
        for (what, limit), size in zip(_LIMITS.items(), logits.shape, strict=True):
            reasons += size_reasons("logits", what, size, limit)
    return reasons


def _fused(logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float) -> Tensor:
    return _FusedNll.apply(logits, targets, is_target, float(smoothing))


reconstruction_nll = fused_op("reconstruction_nll", _fused, _unsupported)
