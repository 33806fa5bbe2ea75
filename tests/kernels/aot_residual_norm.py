"""Variants of the end of every sub-layer that are shipped, for `aot.py`: the widths of the paper and small presets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pps_fast.kernels import residual_norm
from tests.kernels.variant import Variant

# label, D, n, dtype of the rows, with dropout, and where rows lie: first row of each sequence, or ragged
_KINDS = (
    ("256", 256, 50, "fp32", False, ""),
    ("256_dropout", 256, 50, "fp32", True, ""),
    ("256_dropout_bf16", 256, 50, "bf16", True, ""),
    ("256_first_row", 256, 1, "fp32", True, "p_first"),
    ("256_first_row_bf16", 256, 1, "bf16", True, "p_first"),
    ("256_ragged", 256, 256, "fp32", True, "p_place"),
    ("256_ragged_bf16", 256, 256, "bf16", True, "p_place"),
    ("64_dropout", 64, 50, "fp32", True, ""),
    ("2048_dropout", 2048, 50, "fp32", True, ""),
)


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for label, width, length, dtype, has_dropout, places in _KINDS:
        tile = residual_norm.blocks(width)
        num_warps = tile.pop("num_warps")
        constants: dict[str, Any] = {"SCALE": 1 / 0.9, "THRESHOLD": 6554 - 32768, "D": width, **tile}
        # a batch of the paper's size: 32 samples, 15 masks
        signature: dict[str, str | int] = {"num_rows": 32 * 15 * length, "site": 7, "N": length, "num_masks": 480}
        pointers = (("p_dropout_key", "*i32"), ("p_first", "*i64"), ("p_place", "*i32"))
        for pointer, kind in pointers:
            is_present = has_dropout if pointer == "p_dropout_key" else pointer == places
            if is_present:
                signature[pointer] = kind
            else:
                constants[pointer] = None
        rows = dict.fromkeys(("p_x", "p_branch", "p_out", "p_sum"), f"*{dtype}")
        statistics = dict.fromkeys(("p_weight", "p_bias", "p_mean", "p_rstd"), "*fp32")
        forward = {**signature, **rows, **statistics, "alike_x": 27, "alike_branch": 1}
        yield Variant(label, residual_norm.residual_norm_fwd_kernel, forward, {**constants, "EPS": 1e-5}, num_warps)
        rows = dict.fromkeys(("p_grad", "p_sum", "p_grad_x", "p_grad_branch"), f"*{dtype}")
        backward = {**signature, **rows, **dict.fromkeys(("p_weight", "p_mean", "p_rstd", "p_part"), "*fp32")}
        kernel = residual_norm.residual_norm_bwd_kernel
        # ragged rows are those of sub-layers
        for suffix, num_sums in (("", 2), ("_branch_bias", 3))[places == "p_place" :]:
            tile = residual_norm.blocks(width, is_backward=True)
            num_warps = tile.pop("num_warps")
            yield Variant(label + suffix, kernel, backward, {**constants, "SUMS": num_sums, **tile}, num_warps)
