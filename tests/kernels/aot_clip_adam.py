"""The update of a training step as it is shipped, for `aot.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pps_fast.kernels import clip_adam


def variants() -> Iterator[tuple[Any, ...]]:
    """Yields name, kernel, types of its arguments, constants, warps."""
    # values of the Charades model's parameters
    num_parts, per_program = clip_adam.parts(8_620_029)
    block = {"BLOCK": clip_adam._BLOCK}
    signature = {"p_gradient": "*fp32", "p_part": "*fp32", "num_values": "i32"}
    yield "clip_adam_square_sum", clip_adam._square_sum_kernel, signature, {"BLOCKS": per_program, **block}, 4

    signature = dict.fromkeys(("p_part", "p_norm", "p_factor"), "*fp32") | {"num_parts": "i32"}
    signature |= {"p_rate": "*fp64", "p_update": "*fp64", "p_is_sound": "*i1"}
    logs = {"LOG_BETA1": math.log(0.9), "LOG_BETA2": math.log(0.999)}
    width = 1 << (num_parts - 1).bit_length()
    constants = {"CLIP": 10.0, **logs, "DECAY": 0.0, "BLOCK": width}
    yield "clip_adam_decide", clip_adam._decide_kernel, signature, constants, 4

    pointers = ("p_parameter", "p_gradient", "p_first", "p_second", "p_factor")
    signature = {**dict.fromkeys(pointers, "*fp32"), "p_is_sound": "*i1", "num_values": "i32"}
    constants = {"BETA1": 0.9, "BETA2": 0.999, "EPS": 1e-8, **block}
    yield "clip_adam_update", clip_adam._update_kernel, signature, constants, 4
