"""The keys of masks as they are shipped, for `aot.py`."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import mask_keys as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variant."""
    signature: dict[str, str | int] = {
        "p_dropout_key": "*i32",
        "p_out": "*i32",
        "num_keys": 32 * 43,
        "N": 43,
        "first": 1,
    }
    yield Variant("43", kernel.mask_keys_kernel, signature, {"BLOCK_N": kernel._BLOCK_N})
