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
        # 8,001 columns, of which a launch reads whole vectors
        ("vocabulary_bf16", "bf16", 8016, 8064, False),
        ("relu_bf16", "bf16", 512, 512, True),
        ("relu_fp32", "fp32", 512, 512, True),
    ):
        signature: dict[str, str | int] = {"p_grad": f"*{dtype}", "p_part": "*fp32", "num_rows": _NUM_ROWS, "C": width}
        signature["num_columns"] = 8001 if width == 8016 else width
        signature["s_row"] = length
        constants = blocks if has_relu else {**blocks, "p_result": None}
        signature |= {"p_result": f"*{dtype}"} if has_relu else {}
        yield Variant(label, kernel.linear_gradient_sum_kernel, signature, constants)
    signature = dict.fromkeys(("p_part", "p_first", "p_second", "p_third"), "*fp32")
    signature |= {"num_parts": kernel.programs(_NUM_ROWS, 256)[0], "s_part": 256, "C": 256}
    constants = {"BLOCKS": kernel._TOTAL_BLOCKS, "BLOCK_P": kernel._TOTAL_P, "BLOCK_C": kernel._TOTAL_C}
    yield Variant("256", kernel.linear_gradient_total_kernel, signature, constants, num_warps=8)
