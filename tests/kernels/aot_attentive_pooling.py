"""Variants of the kernels of the pooling that are shipped, for `aot.py`: the paper's and the largest sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton

from pps_fast.kernels import attentive_pooling as kernel
from tests.kernels.variant import Variant


def _types(*pointers: str) -> dict[str, str]:
    return {**dict.fromkeys(pointers, "*fp32"), "p_group": "*i64"}


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for components, groups in ((28, 7), (64, 32)):
        constants = {"K": groups, "E": components, "BLOCK_E": triton.next_power_of_2(components)}
        forward, backward = _types("p_score", "p_importance"), _types("p_importance", "p_grad", "p_grad_score")
        yield Variant(f"{components}", kernel.importance_fwd_kernel, forward, constants)
        yield Variant(f"{components}", kernel.importance_bwd_kernel, backward, constants)
    for components, groups, positions in ((28, 7, 50), (64, 32, 512)):
        yield from _mixtures(components, groups, positions)


def _mixtures(components: int, groups: int, positions: int) -> Iterator[Variant]:
    shape, floor = {"K": groups, "E": components, "T": positions}, {"PEAK_FLOOR": 1e-20}
    label = f"{components}x{positions}"
    constants = {**shape, **kernel._fwd_blocks(components, positions)}
    types = _types("p_masks", "p_importance", "p_mixture", "p_log")
    yield Variant(label, kernel.mixture_fwd_kernel, types, constants)
    types = _types("p_masks", "p_mixture", "p_log", "p_peak", "p_peak_position")
    yield Variant(label, kernel.peak_mixture_fwd_kernel, types, constants | floor)
    constants = {**shape, **kernel._bwd_blocks(positions)}
    read, written = ("p_masks", "p_importance", "p_log"), ("p_grad_masks", "p_grad_log_masks", "p_grad_importance")
    types = _types(*read, "p_grad", "p_grad_log", *written) | {"num_rows": 32 * components}
    yield Variant(label, kernel.mixture_bwd_kernel, types, constants)
    yield _without_grad(label, kernel.mixture_bwd_kernel, types, constants)
    read = ("p_mixture", "p_peak", "p_peak_position", "p_grad", "p_grad_log")
    types = _types(*read, "p_grad_masks") | {"num_rows": 32 * components}
    yield Variant(label, kernel.peak_mixture_bwd_kernel, types, constants | floor)
    yield _without_grad(label, kernel.peak_mixture_bwd_kernel, types, constants | floor)


def _without_grad(label: str, kernel: Any, types: dict[str, str | int], constants: dict[str, Any]) -> Variant:
    """Where only the log of a mixture is read, as in a training step."""
    read = {name: kind for name, kind in types.items() if name != "p_grad"}
    return Variant(f"{label}_log", kernel, read, constants | {"p_grad": None})
