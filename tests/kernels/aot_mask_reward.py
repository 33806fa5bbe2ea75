"""Variants of the reward kernels that are shipped, for `aot.py`: the presets' sizes and the largest."""

from __future__ import annotations

from collections.abc import Iterator

from pps_fast.kernels import mask_reward as kernel
from tests.kernels.variant import Variant


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    for masks, positions, is_padded in ((7, 50, False), (7, 50, True), (28, 200, True), (64, 4096, True)):
        constants = {"POWER": 0.25, "N": masks, "T": positions, **kernel._blocks(masks, positions)}
        read = {"p_masks": "*fp32", "p_curve": "*fp32"}
        if is_padded:
            read["p_valid"] = "*i1"
        else:
            constants["p_valid"] = None
        label = f"{masks}x{positions}" + ("_padded" if is_padded else "")
        yield Variant(label, kernel.mask_reward_fwd_kernel, {**read, "p_reward": "*fp32"}, constants)
        written = dict.fromkeys(("p_reward", "p_grad", "p_grad_masks", "p_grad_curve"), "*fp32")
        yield Variant(label, kernel.mask_reward_bwd_kernel, {**read, **written}, constants)
