"""Variants of the dropout of inputs that are shipped, for `aot.py`: frames, their summary, and words of both widths."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import dropout as kernel
from tests.kernels.variant import Variant

# label, D, n, dtype read and written, whether the sequences are one
_KINDS = (
    ("frames_fp32", 1024, 200, "fp32", "fp32", False),
    ("frames_bf16", 1024, 200, "fp32", "bf16", False),
    ("frames_of_bf16", 500, 200, "bf16", "fp32", False),
    ("frame_cls_bf16", 1024, 1, "fp32", "bf16", True),
    ("words_bf16", 300, 15, "fp32", "bf16", False),
)


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for label, width, length, read, written, is_shared in _KINDS:
        signature: dict[str, str | int] = {"p_x": f"*{read}", "p_out": f"*{written}", "p_dropout_key": "*i32"}
        signature |= {"N": length, "site": 3, "first_row": 0}
        constants = {"SCALE": 1 / 0.9, "THRESHOLD": 6554 - 32768, "IS_SHARED": is_shared, "D": width}
        yield Variant(label, kernel.dropout_kernel, signature, {**constants, "BLOCK_V": kernel._BLOCK_V})
