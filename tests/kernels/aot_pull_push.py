"""Variants of the kernels of the losses that are shipped, for `aot.py`: the smallest, the paper's and the largest."""

from __future__ import annotations

from collections.abc import Iterator

import triton

from pps_fast.kernels import pull_push
from tests.kernels.variant import Variant

# rows, positions, whether rows are normalized
_PUSHED = ((7, 50, True), (28, 50, True), (28, 50, False), (28, 200, True), (64, 512, True))


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    results = {"p_group": "*i64", "p_loss": "*fp32", "p_grad": "*fp32"}
    for rows, positions, normalize in _PUSHED:
        constants = {"TARGET": 0.15, "ROW_SUM_FLOOR": 1e-6, "NORMALIZE": normalize, "N": rows, "T": positions}
        constants |= pull_push._push_blocks(rows, positions)
        label = f"{rows}x{positions}" + ("" if normalize else "_plain")
        yield Variant(label, pull_push.push_fwd_kernel, {"p_masks": "*fp32", **results}, constants)
    for components, groups in ((28, 7), (64, 64)):
        for index, strategy in enumerate(pull_push.STRATEGIES):
            constants = {"K": groups, "N": components, "BLOCK_N": triton.next_power_of_2(components), "STRATEGY": index}
            label = f"{strategy}_{components}"
            yield Variant(label, pull_push.pull_fwd_kernel, {"p_center": "*fp32", **results}, constants)
