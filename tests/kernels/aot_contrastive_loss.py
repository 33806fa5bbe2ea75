"""Variants of the kernels of the contrastive loss that are shipped, for `aot.py`: the paper's and larger sizes."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import contrastive_loss as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    read = dict.fromkeys(("p_best", "p_whole", "p_negative"), "*fp32")
    written = dict.fromkeys(("p_grad", "p_grad_best", "p_grad_whole", "p_grad_negative"), "*fp32")
    for samples, best, negatives in ((32, 1, 1), (256, 7, 2)):
        label, sizes = f"{samples}x{best}x{negatives}", {"num_samples": samples}
        constants = {"WHOLE_MARGIN": 0.1, "NEGATIVE_MARGIN": 0.15, "N": best, "J": negatives}
        constants |= kernel._blocks(samples, best)
        yield Variant(label, kernel.contrastive_loss_fwd_kernel, {**read, "p_loss": "*fp32", **sizes}, constants)
        yield Variant(label, kernel.contrastive_loss_bwd_kernel, {**read, **written, **sizes}, constants)
