"""The kernels of the losses as they are shipped, for `aot.py`: the smallest, the paper's and the largest sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton

from pps_fast.kernels import pull_push


def variants() -> Iterator[tuple[Any, ...]]:
    """Yields name, kernel, types of its arguments, constants."""
    push = {"p_masks": "*fp32", "p_group": "*i64", "p_loss": "*fp32", "p_grad": "*fp32"}
    for rows, positions, normalize in (
        (7, 50, True),
        (28, 50, True),
        (28, 50, False),
        (28, 200, True),
        (64, 512, True),
    ):
        constants = {"TARGET": 0.15, "ROW_SUM_FLOOR": 1e-6, "NORMALIZE": normalize, "N": rows, "T": positions}
        name = f"push_{rows}x{positions}" + ("" if normalize else "_plain")
        yield name, pull_push._push_kernel, push, {**constants, **pull_push._push_blocks(rows, positions)}
    pull = {"p_center": "*fp32", "p_group": "*i64", "p_loss": "*fp32", "p_grad": "*fp32"}
    for components, groups in ((28, 7), (64, 64)):
        for index, strategy in enumerate(pull_push.STRATEGIES):
            constants = {"K": groups, "N": components, "BLOCK_N": triton.next_power_of_2(components), "STRATEGY": index}
            yield f"pull_{strategy}_{components}", pull_push._pull_kernel, pull, constants
