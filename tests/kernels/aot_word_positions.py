"""Variants of the positions of words that are shipped, for `aot.py`: the query, with q_cls where words are hidden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pps_fast.kernels import word_positions as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for dtype in ("fp32", "bf16"):
        signature: dict[str, str | int] = {"num_rows": 32 * 16, "N": 16}
        constants: dict[str, Any] = {"D": 256, "BLOCK_R": kernel._BLOCK_R, "BLOCK_D": kernel._BLOCK_D}
        forward = {**signature, "p_x": f"*{dtype}", "p_table": "*fp32", "p_out": f"*{dtype}"}
        forward |= {"p_cls": "*fp32", "p_num_words": "*i64", "has_cls": 1}
        yield Variant(f"query_{dtype}", kernel.word_positions_fwd_kernel, forward, constants)
        backward = {"p_grad": f"*{dtype}", "p_num_words": "*i64", "p_grad_x": f"*{dtype}", "p_cls_sum": "*fp32"}
        yield Variant(f"query_{dtype}", kernel.word_positions_bwd_kernel, {**signature, **backward}, constants)
