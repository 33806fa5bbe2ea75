"""The kernels of the boundaries as they are shipped, for `aot.py`: the paper's and the largest sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pps_fast.kernels import boundaries as kernel


def variants() -> Iterator[tuple[Any, ...]]:
    """Yields name, kernel, types of its arguments, constants."""
    given = dict.fromkeys(("p_center", "p_width", "p_importance"), "*fp32") | {"p_group": "*i64"}
    forward = dict.fromkeys(("p_start", "p_end"), "*fp32")
    results = ("p_grad_start", "p_grad_end", "p_grad_center", "p_grad_width", "p_grad_importance")
    for components, groups, shrink in ((28, 7, 0.0), (28, 7, 0.15), (64, 64, 0.15)):
        constants = {"SHRINK": shrink, "K": groups, "E": components, **kernel._blocks(groups, components)}
        name = f"boundaries_{components}x{groups}" + ("_shrunk" if shrink else "")
        yield f"{name}_fwd", kernel._fwd_kernel, given | forward, constants
        yield f"{name}_bwd", kernel._bwd_kernel, given | dict.fromkeys(results, "*fp32"), constants
