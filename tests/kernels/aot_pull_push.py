"""Variants of the kernels of the losses that are shipped, for `aot.py`: the paper's and the largest."""

from __future__ import annotations

from collections.abc import Iterator

import triton

from pps_fast.kernels import pull_push
from tests.kernels.variant import Variant

# rows, positions, form of the rows
_PUSHED = (
    (28, 50, "exponents"),
    (28, 50, "sums"),
    (28, 50, "plain"),
    (28, 200, "exponents"),
    (64, 512, "sums"),
    (64, 512, "exponents"),
)


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    results = {"p_group": "*i64", "p_loss": "*fp32", "p_grad": "*fp32"}
    for rows, positions, form in _PUSHED:
        constants = {"TARGET": 0.15, "ROW_SUM_FLOOR": 1e-37, "FORM": pull_push.FORMS.index(form)}
        constants["T"] = positions
        tile = pull_push._push_blocks(rows, positions)
        warps, stages = tile.pop("num_warps"), tile.pop("num_stages")
        label = f"{rows}x{positions}_{form}"
        signature = {"p_rows": "*fp32", **results, "N": rows}
        yield Variant(label, pull_push.push_fwd_kernel, signature, constants | tile, warps, stages)
    for components, groups in ((28, 7), (64, 64)):
        for index, strategy in enumerate(pull_push.STRATEGIES):
            constants = {"K": groups, "N": components, "BLOCK_N": triton.next_power_of_2(components), "STRATEGY": index}
            label = f"{strategy}_{components}"
            yield Variant(label, pull_push.pull_fwd_kernel, {"p_center": "*fp32", **results}, constants)
