"""Variants of the kernels of the boundaries that are shipped, for `aot.py`: the paper's and the largest sizes."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import boundaries as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    inputs = dict.fromkeys(("p_center", "p_width", "p_importance"), "*fp32") | {"p_group": "*i64"}
    forward = inputs | dict.fromkeys(("p_start", "p_end"), "*fp32")
    gradients = ("p_grad_start", "p_grad_end", "p_grad_center", "p_grad_width", "p_grad_importance")
    backward = inputs | dict.fromkeys(gradients, "*fp32")
    for components, groups, shrink in ((28, 7, 0.0), (28, 7, 0.15), (64, 64, 0.15)):
        constants = {"SHRINK": shrink, "K": groups, "E": components, **kernel._blocks(groups, components)}
        label = f"{components}x{groups}" + ("_shrunk" if shrink else "")
        yield Variant(label, kernel.boundaries_fwd_kernel, forward, constants)
        yield Variant(label, kernel.boundaries_bwd_kernel, backward, constants)
