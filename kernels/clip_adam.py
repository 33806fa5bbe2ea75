"""The update of a training step: clipping by the global norm, then Adam, over flat buffers and in place.

    norm = sqrt(sum g^2),   h = g min(1, clip / (norm + 1e-6))
    m = beta1 m + (1 - beta1) h,   v = beta2 v + (1 - beta2) h^2
    p = p (1 - rate decay) - rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps),   g = 0

The norm is made in two steps, a part of the values per program and then the parts, so that two runs agree bitwise. One
program of the second step decides whether the update is made and computes what all values share, in fp64: in fp32
1 - beta2^t has four digits for small t. The third kernel reads that, and nothing is read by the host.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# values held by one program at a time
_BLOCK = 1024
# parts of the norm's sum
_MAX_PARTS = 512
# as in torch.nn.utils.clip_grad_norm_
_CLIP_EPS = tl.constexpr(1e-6)


@triton.jit
def _square_sum_kernel(p_gradient, p_part, num_values, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    i_program = tl.program_id(0)
    b_sum = tl.zeros([BLOCK], tl.float32)
    for i_block in range(BLOCKS):
        o_value = (i_program * BLOCKS + i_block).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        b_gradient = tl.load(p_gradient + o_value, mask=o_value < num_values, other=0.0)
        b_sum += b_gradient * b_gradient
    tl.store(p_part + i_program, tl.sum(b_sum, axis=0))


@triton.jit
def _decide_kernel(
    p_part, p_rate, p_update, p_is_sound, p_norm, p_factor,
    num_parts, CLIP: tl.constexpr,
    LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr,
    DECAY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    o_part = tl.arange(0, BLOCK)
    b_sum = tl.sum(tl.load(p_part + o_part, mask=o_part < num_parts, other=0.0), axis=0)
    b_norm = tl.sqrt_rn(b_sum)
    tl.store(p_norm, b_norm)
    # neither holds of a NaN
    b_is_sound = (tl.load(p_is_sound) != 0) & (b_norm < float("inf"))
    tl.store(p_is_sound, b_is_sound)
    b_update = tl.load(p_update) + tl.where(b_is_sound, 1.0, 0.0)
    tl.store(p_update, b_update)
    # before the first update the correction would be 0 / 0
    b_count = tl.maximum(b_update, 1.0)
    b_rate = tl.load(p_rate)
    b_corrected = b_rate * tl.sqrt(1.0 - tl.exp(b_count * LOG_BETA2)) / (1.0 - tl.exp(b_count * LOG_BETA1))
    tl.store(p_factor, tl.minimum(tl.div_rn(CLIP, b_norm + _CLIP_EPS), 1.0))
    tl.store(p_factor + 1, (1.0 - b_rate * DECAY).to(tl.float32))
    tl.store(p_factor + 2, b_corrected.to(tl.float32))


@triton.jit
def _update_kernel(
    p_parameter, p_gradient, p_first, p_second, p_is_sound, p_factor,
    num_values,
    BETA1: tl.constexpr, BETA2: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    o_value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_value = o_value < num_values
    # a refused update reads and writes nothing but the gradient's zeros
    m_sound = m_value & (tl.load(p_is_sound) != 0)
    b_scale, b_kept, b_rate = tl.load(p_factor), tl.load(p_factor + 1), tl.load(p_factor + 2)
    b_gradient = tl.load(p_gradient + o_value, mask=m_sound, other=0.0) * b_scale
    b_first = tl.load(p_first + o_value, mask=m_sound, other=0.0) * BETA1 + (1 - BETA1) * b_gradient
    b_second = tl.load(p_second + o_value, mask=m_sound, other=0.0) * BETA2 + (1 - BETA2) * b_gradient * b_gradient
    b_parameter = tl.load(p_parameter + o_value, mask=m_sound, other=0.0) * b_kept
    b_parameter -= b_rate * tl.div_rn(b_first, tl.sqrt_rn(b_second) + EPS)
    tl.store(p_parameter + o_value, b_parameter, mask=m_sound)
    tl.store(p_first + o_value, b_first, mask=m_sound)
    tl.store(p_second + o_value, b_second, mask=m_sound)
    tl.store(p_gradient + o_value, tl.zeros([BLOCK], tl.float32), mask=m_value)


def parts(num_values: int) -> tuple[int, int]:
    """Programs of the norm's first step over a buffer, and how many blocks each has."""
    num_blocks = triton.cdiv(num_values, _BLOCK)
    # a power of two, so that few sizes compile anew
    per_program = triton.next_power_of_2(triton.cdiv(num_blocks, _MAX_PARTS))
    return triton.cdiv(num_blocks, per_program), per_program


def _square_sums(gradients: list[Tensor]) -> Tensor:
    """Parts of the sum of squares over all buffers, [parts] fp32."""
    launches = [parts(gradient.numel()) for gradient in gradients]
    part = empty(gradients[0], sum(programs for programs, _ in launches))
    begin = 0
    for gradient, (programs, per_program) in zip(gradients, launches, strict=True):
        given = {"p_gradient": gradient, "p_part": part[begin:], "num_values": gradient.numel()}
        _square_sum_kernel[(programs,)](**given, BLOCKS=per_program, BLOCK=_BLOCK, num_warps=4)
        begin += programs
    return part


def clip_adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    rate: Tensor,
    update: Tensor,
    is_sound: Tensor,
    constants: list[float],
) -> Tensor:
    """Clips and updates in place.

    Args:
        parameters, gradients, first, second: contiguous fp32 buffers [n], one of each kind per place; the moments last.
        rate, update: [] fp64.
        is_sound: [] bool.
        constants: clip norm, beta1, beta2, eps, weight decay.
    Returns:
        [] fp32 norm before clipping.
    """
    clip, beta1, beta2, eps, decay = constants
    logs = {"LOG_BETA1": _log(beta1), "LOG_BETA2": _log(beta2)}
    with device_of(rate):
        part = _square_sums(gradients)
        norm, factor = empty(rate), empty(rate, 3)
        decided = {"p_rate": rate, "p_update": update, "p_is_sound": is_sound, "p_norm": norm, "p_factor": factor}
        num, width = part.numel(), triton.next_power_of_2(part.numel())
        _decide_kernel[(1,)](
            p_part=part, **decided, num_parts=num, CLIP=clip, **logs, DECAY=decay, BLOCK=width, num_warps=4
        )
        shared = {"p_is_sound": is_sound, "p_factor": factor, "BETA1": beta1, "BETA2": beta2, "EPS": eps}
        for parameter, gradient, m, v in zip(parameters, gradients, first, second, strict=True):
            buffers = {"p_parameter": parameter, "p_gradient": gradient, "p_first": m, "p_second": v}
            grid = (triton.cdiv(parameter.numel(), _BLOCK),)
            _update_kernel[grid](**buffers, **shared, num_values=parameter.numel(), BLOCK=_BLOCK, num_warps=4)
    return norm


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf
