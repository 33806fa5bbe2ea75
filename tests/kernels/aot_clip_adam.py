"""Variants of the kernels of a parameter update that are shipped, for `aot.py`: the Charades model's size."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pps_fast.kernels import clip_adam
from tests.kernels.variant import Variant

# each parameter begins at a multiple of 64
_NUM_VALUES = 8_620_992


def variants() -> Iterator[Variant]:
    """Yields the shipped variants."""
    num_parts, per_program = clip_adam.parts(_NUM_VALUES)
    block = {"BLOCK": clip_adam._BLOCK}
    signature = {"p_gradient": "*fp32", "p_part": "*fp32", "num_values": _NUM_VALUES}
    yield Variant("charades", clip_adam.clip_adam_square_sum_kernel, signature, {"BLOCKS": per_program, **block})

    signature = dict.fromkeys(("p_part", "p_loss", "p_norm", "p_factor"), "*fp32") | {"num_parts": num_parts}
    signature |= {"p_rate": "*fp64", "p_update": "*fp64", "p_is_finite": "*i1"}
    logs = {"LOG_BETA1": math.log(0.9), "LOG_BETA2": math.log(0.999)}
    width = 1 << (num_parts - 1).bit_length()
    constants = {"CLIP": 10.0, **logs, "DECAY": 0.0, "BLOCK": width}
    yield Variant("charades", clip_adam.clip_adam_decide_kernel, signature, constants)

    pointers = ("p_parameter", "p_gradient", "p_first", "p_second", "p_factor")
    signature = {**dict.fromkeys(pointers, "*fp32"), "p_is_finite": "*i1", "num_values": _NUM_VALUES}
    constants = {"BETA1": 0.9, "BETA2": 0.999, "EPS": 1e-8, **block}
    yield Variant(
        "charades", clip_adam.clip_adam_update_kernel, signature, {**constants, "p_rounded": None}, num_warps=8
    )
    signature["p_rounded"] = "*bf16"
    yield Variant("charades_bf16", clip_adam.clip_adam_update_kernel, signature, constants, num_warps=8)
