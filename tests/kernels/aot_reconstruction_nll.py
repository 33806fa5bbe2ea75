"""Variants of the cross-entropy kernels that are shipped, for `aot.py`: the vocabularies of both data sets."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pps_fast.kernels import reconstruction_nll as kernel
from tests.kernels.variant import Variant

_COLUMNS = 20
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_READ = {"p_targets": "*i64", "p_is_target": "*i1", "p_peak": "*fp32", "p_log_sum": "*fp32"}
# classes, words: vocabularies of the published data, and as few as the smallest test has
_SHAPES = ((1112, _COLUMNS), (8001, _COLUMNS), (23, 9))


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    block_all = {"BLOCK_ALL": kernel.block_all(_COLUMNS)}
    for num_classes, num_columns in _SHAPES:
        for name, dtype in _TYPES.items():
            logits = torch.empty(2, 2, num_columns, num_classes, dtype=dtype, device="meta")
            constants = {"SMOOTHING": 0.1, "ALIGNMENT": kernel.alignment(logits), "V": num_classes}
            constants |= kernel.blocks(num_columns, num_classes)
            strides = dict(zip(("s_b", "s_n", "s_l"), logits.stride()[:3], strict=True))
            read = {"p_logits": f"*{name}", **_READ, "L": num_columns, **strides}
            label = f"{num_classes}_{name}"
            forward = {**read, "p_word": "*fp32"}
            yield Variant(label, kernel.reconstruction_nll_fwd_word_kernel, forward, constants)
            backward = {**read, "p_grad": "*fp32", "p_grad_logits": f"*{name}"}
            yield Variant(label, kernel.reconstruction_nll_bwd_kernel, backward, constants | block_all)
    mean = {"p_word": "*fp32", "p_is_target": "*i1", "p_nll": "*fp32", "L": _COLUMNS}
    yield Variant(f"{_COLUMNS}", kernel.reconstruction_nll_fwd_mean_kernel, mean, block_all, num_warps=1)
