"""Variants of the importance's scores that are shipped, for `aot.py`: the paper's width and a wide model's."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import importance_score as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for label, width, dtype in (("256_fp32", 256, "fp32"), ("256_bf16", 256, "bf16"), ("2048_bf16", 2048, "bf16")):
        read = {"p_x": f"*{dtype}", "p_outer": "*fp32", "first": 1}
        constants = {"N": 27, "E": 28, "D": width, **kernel.blocks(width)}
        forward = {**read, "p_score": "*fp32", "num_scores": 32 * 28}
        yield Variant(label, kernel.importance_score_fwd_kernel, forward, constants)
        backward = {**read, "p_grad": "*fp32", "p_grad_x": f"*{dtype}", "p_part": "*fp32", "num_rows": 32 * 27}
        yield Variant(label, kernel.importance_score_bwd_kernel, backward, constants)
