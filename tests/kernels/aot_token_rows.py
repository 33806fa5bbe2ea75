"""Variants of rows with tokens that are shipped, for `aot.py`: frames with v_cls, and the query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pps_fast.kernels import token_rows as kernel
from tests.kernels.variant import Variant

# label, D, rows of x, row of the token, rows, dtype read and written, with dropout, with hidden rows
_KINDS = (
    ("frames_bf16", 1024, 200, 200, 201, "fp32", "bf16", True, False),
    ("frames_kept_fp32", 1024, 200, 200, 201, "fp32", "fp32", False, False),
    ("frames_of_bf16", 500, 200, 200, 201, "bf16", "bf16", True, False),
    ("query_bf16", 300, 14, 0, 16, "fp32", "bf16", True, True),
    ("query_fp32", 300, 14, 0, 16, "fp32", "fp32", True, True),
)


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for label, width, length, token_row, num_rows, read, written, is_dropping, has_hidden in _KINDS:
        both: dict[str, Any] = {"SCALE": 1 / 0.9, "THRESHOLD": 6554 - 32768, "D": width}
        both |= {"M": length, "N": num_rows, "token_row": token_row, "has_hidden": int(has_hidden), "site": 3}
        both |= {"p_dropout_key": "*i32" if is_dropping else None, "p_is_hidden": "*i1"}
        forward = {**both, "p_x": f"*{read}", "p_token": "*fp32", "p_hidden": "*fp32", "p_out": f"*{written}"}
        yield _variant(label, kernel.token_rows_fwd_kernel, {**forward, "BLOCK_V": kernel._BLOCK_V})
        backward = {**both, "p_grad": f"*{written}", "p_token_sum": "*fp32", "p_hidden_sum": "*fp32"}
        backward |= {"num_rows": 32 * num_rows, "first_row": 0, "BLOCK_R": kernel._BLOCK_R, "BLOCK_D": kernel._BLOCK_D}
        yield _variant(label, kernel.token_rows_bwd_kernel, backward)


def _variant(label: str, function: Any, arguments: dict[str, Any]) -> Variant:
    """Tells constants, in capitals but for M and N, and pointers that are None from the signature."""
    constants = {
        name: value for name, value in arguments.items() if value is None or (name.isupper() and name not in ("M", "N"))
    }
    signature = {name: value for name, value in arguments.items() if name not in constants}
    return Variant(label, function, signature, constants)
