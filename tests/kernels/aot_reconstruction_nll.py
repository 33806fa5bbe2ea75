"""Variants of the cross-entropy kernels that are shipped, for `aot.py`: the vocabularies of both data sets."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pps_fast.kernels import reconstruction_nll as kernel
from tests.kernels.variant import Variant

_COLUMNS = 20
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_READ = {"p_targets": "*i64", "p_is_target": "*i1", "p_peak": "*fp32", "p_log_sum": "*fp32"}
# classes, words, length of a row: vocabularies of the published data, as products leave them and close together, and as
# few classes as the smallest test has
_SHAPES = ((1112, _COLUMNS, 1152), (8001, _COLUMNS, 8064), (8001, _COLUMNS, 8001), (23, 9, 23))


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    block_all = {"BLOCK_ALL": kernel.block_all(_COLUMNS)}
    for num_classes, num_columns, length in _SHAPES:
        for name, dtype in _TYPES.items():
            logits = torch.empty(2, 2, num_columns, length, dtype=dtype, device="meta")[..., :num_classes]
            constants = {"SMOOTHING": 0.1, "ALIGNMENT": kernel.alignment(logits), "V": num_classes}
            constants |= kernel.blocks(num_columns, num_classes)
            strides = logits.stride()[:3]
            read = {"p_logits": f"*{name}", **_READ, "L": num_columns}
            read |= dict(zip(("s_b", "s_n", "s_l"), strides, strict=True))
            forward = {**read, "p_word": "*fp32"}
            backward = {**read, "p_grad": "*fp32", "p_grad_logits": f"*{name}"}
            backward |= dict(zip(("s_db", "s_dn", "s_dl"), strides, strict=True))
            of_backward = {**constants, "ROW_ALIGNMENT": constants["ALIGNMENT"], **block_all}
            # ragged rows come from products alone
            kinds = (("", {}, {"p_start": None}), ("_ragged", {"p_start": "*i32"}, {}))
            for suffix, pointer, constant in kinds[: 2 if length % 64 == 0 else 1]:
                label = f"{num_classes}_of_{length}_{name}{suffix}"
                arguments = {**forward, **pointer}, {**constants, **constant}
                yield Variant(label, kernel.reconstruction_nll_fwd_word_kernel, *arguments)
                arguments = {**backward, **pointer}, {**of_backward, **constant}
                yield Variant(label, kernel.reconstruction_nll_bwd_kernel, *arguments)
    mean = {"p_word": "*fp32", "p_is_target": "*i1", "p_nll": "*fp32", "L": _COLUMNS}
    yield Variant(f"{_COLUMNS}", kernel.reconstruction_nll_fwd_mean_kernel, mean, block_all, num_warps=1)
