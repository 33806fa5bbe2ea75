"""The choice of hidden words as it is shipped, for `aot.py`."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import hidden_words as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variant."""
    signature: dict[str, str | int] = {"p_log_prob": "*fp32", "p_noise": "*fp32", "p_num_words": "*i64"}
    signature |= {"p_out": "*i1", "L": 14, "divisor": 3}
    yield Variant("64", kernel.hidden_words_kernel, signature, {"BLOCK_L": kernel.MAX_WORDS})
