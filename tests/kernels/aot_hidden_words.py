"""Variants of the choice of hidden words that are shipped, for `aot.py`: by the longest sentence of a data set."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import hidden_words as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for length in (16, 32, 64):
        signature: dict[str, str | int] = {"p_log_prob": "*fp32", "p_noise": "*fp32", "p_num_words": "*i64"}
        signature |= {"p_out": "*i1", "L": length - 2, "divisor": 3}
        yield Variant(f"{length}", kernel.hidden_words_kernel, signature, {"BLOCK_L": length})
