"""Variants of the heads of centers and widths that are shipped, for `aot.py`: of the paper's width, and wide."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import component_heads as kernel
from tests.kernels.variant import Variant

# label, components, rows of the head of centers, D, dtype of g_cls
_KINDS = (
    ("28_fp32", 28, 28, 256, "fp32"),
    ("28_bf16", 28, 28, 256, "bf16"),
    ("28_wide", 28, 28, 2048, "bf16"),
)


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for label, num_components, num_centers, width, dtype in _KINDS:
        values = dict.fromkeys(("p_center_weight", "p_width_weight", "p_center", "p_width"), "*fp32")
        signature: dict[str, str | int] = {**values, "p_center_index": "*i64", "p_width_index": "*i64"}
        signature |= {"p_g_cls": f"*{dtype}", "E": num_components}
        constants = {"MAX_WIDTH": 1.0, "D": width}
        tile = {"BLOCK_E": kernel._BLOCK_E, "BLOCK_D": kernel._BLOCK_D}
        forward = {**signature, "p_center_bias": "*fp32", "p_width_bias": "*fp32"}
        yield Variant(label, kernel.component_heads_fwd_kernel, forward, {**constants, **tile})
        sums = ("p_center_weight_sum", "p_center_bias_sum", "p_width_weight_sum", "p_width_bias_sum")
        backward = {**signature, **dict.fromkeys(("p_grad_center", "p_grad_width", *sums), "*fp32"), "num_samples": 32}
        constants |= kernel.blocks(num_components, width)
        backward |= {"p_grad_g_cls": f"*{dtype}", "num_centers": num_centers}
        yield Variant(label, kernel.component_heads_bwd_kernel, backward, constants)
