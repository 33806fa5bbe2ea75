"""The places of ragged rows as they are shipped, for `aot.py`: batches of training, and the largest."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import ragged_rows as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    pointers = {"p_num_words": "*i64", "p_start": "*i32", "p_place": "*i32", "p_index": "*i64"}
    for num_samples in (32, 1024):
        signature: dict[str, str | int] = {**pointers, "B": num_samples, "C": 14, "R": 10 * num_samples, "extra": 2}
        constants = {"BLOCK_B": num_samples, "BLOCK_R": kernel._BLOCK_R}
        yield Variant(f"{num_samples}", kernel.ragged_rows_kernel, signature, constants)
