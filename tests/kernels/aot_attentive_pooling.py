"""The kernels of the pooling as they are shipped, for `aot.py`: the paper's and the largest sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton

from pps_fast.kernels import attentive_pooling as kernel


def _types(*pointers: str) -> dict[str, str]:
    return {**dict.fromkeys(pointers, "*fp32"), "p_group": "*i64"}


def variants() -> Iterator[tuple[Any, ...]]:
    """Yields name, kernel, types of its arguments, constants."""
    for components, groups in ((28, 7), (64, 32)):
        constants = {"K": groups, "E": components, "BLOCK_E": triton.next_power_of_2(components)}
        forward, backward = _types("p_score", "p_importance"), _types("p_importance", "p_grad", "p_grad_score")
        yield f"importance_{components}_fwd", kernel._importance_fwd_kernel, forward, constants
        yield f"importance_{components}_bwd", kernel._importance_bwd_kernel, backward, constants
    for components, groups, positions in ((28, 7, 50), (64, 32, 512)):
        shape, floor = {"K": groups, "E": components, "T": positions}, {"PEAK_FLOOR": 1e-20}
        size = f"{components}x{positions}"
        constants = {**shape, **kernel._fwd_blocks(components, positions)}
        types = _types("p_masks", "p_importance", "p_mixture", "p_log")
        yield f"mixture_{size}_fwd", kernel._mixture_fwd_kernel, types, constants
        types = _types("p_masks", "p_mixture", "p_log", "p_peak", "p_place")
        yield f"peak_mixture_{size}_fwd", kernel._peak_mixture_fwd_kernel, types, constants | floor
        constants = {**shape, **kernel._bwd_blocks(positions)}
        read, written = ("p_masks", "p_importance", "p_log"), ("p_grad_masks", "p_grad_log_masks", "p_grad_importance")
        types = _types(*read, "p_grad", "p_grad_log", *written) | {"num_rows": "i32"}
        yield f"mixture_{size}_bwd", kernel._mixture_bwd_kernel, types, constants
        read = ("p_mixture", "p_peak", "p_place", "p_grad", "p_grad_log")
        types = _types(*read, "p_grad_masks") | {"num_rows": "i32"}
        yield f"peak_mixture_{size}_bwd", kernel._peak_mixture_bwd_kernel, types, constants | floor
