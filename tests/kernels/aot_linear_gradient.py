"""Variants of the kernels of a bias's gradient that are shipped, for `aot.py`: the reconstructor's frames."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import linear_gradient as kernel
from tests.kernels.variant import Variant

# 32 samples, 28 masks, 50 positions
_NUM_ROWS = 32 * 28 * 50


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    blocks = {"BLOCK_R": kernel._BLOCK_R, "BLOCK_C": kernel._BLOCK_C}
    for label, dtype, width, length, has_relu in (
        ("projection_bf16", "bf16", 256, 256, False),
        ("projection_fp32", "fp32", 256, 256, False),
        ("vocabulary_bf16", "bf16", 8001, 8064, False),
        ("relu_bf16", "bf16", 512, 512, True),
        ("relu_fp32", "fp32", 512, 512, True),
    ):
        signature: dict[str, str | int] = {"p_grad": f"*{dtype}", "p_part": "*fp32", "num_rows": _NUM_ROWS, "C": width}
        signature["s_row"] = length
        constants = blocks if has_relu else {**blocks, "p_result": None}
        signature |= {"p_result": f"*{dtype}"} if has_relu else {}
        yield Variant(label, kernel.linear_gradient_sum_kernel, signature, constants)
    for width in (256, 768):
        signature = dict.fromkeys(("p_part", "p_first", "p_second", "p_third"), "*fp32")
        number = kernel.programs(_NUM_ROWS, width)[0]
        constants = {"BLOCKS": 2, "BLOCK_P": kernel._TOTAL_P, "BLOCK_C": kernel._TOTAL_C}
        signature |= {"num_parts": number, "C": width}
        yield Variant(f"{width}", kernel.linear_gradient_total_kernel, signature, constants, num_warps=8)
