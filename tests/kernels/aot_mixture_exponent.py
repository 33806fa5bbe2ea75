"""Variants of the kernels of the mixtures' logs that are shipped, for `aot.py`: the paper's and the largest sizes."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import mixture_exponent as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    read = {**dict.fromkeys(("p_exponents", "p_importance", "p_mixture"), "*fp32"), "p_group": "*i64"}
    written = dict.fromkeys(("p_grad", "p_grad_exponents", "p_grad_importance"), "*fp32")
    for components, groups, positions in ((28, 7, 50), (64, 32, 512)):
        label, shape = f"{components}x{positions}", {"K": groups, "E": components, "T": positions}
        constants = {**shape, **kernel._fwd_blocks(components, positions)}
        yield Variant(label, kernel.mixture_exponent_fwd_kernel, read, constants)
        constants = {**shape, **kernel._bwd_blocks(positions)}
        signature = {**read, **written, "num_rows": 32 * components}
        yield Variant(label, kernel.mixture_exponent_bwd_kernel, signature, constants)
