"""The update of a training step: clipping by the global norm, then Adam, over flat buffers and in place.

    norm = sqrt(sum g^2),   h = g min(1, clip / (norm + 1e-6))
    m = beta1 m + (1 - beta1) h,   v = beta2 v + (1 - beta2) h^2
    p = p (1 - rate decay) - rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps),   g = 0
    r = p, rounded

The norm is computed in two steps: each program of the first kernel sums its part of the values, and the single program
of the second kernel sums the parts in a fixed order, so that two runs agree bitwise. The second kernel also decides
whether the update takes place and computes the factors that all values share. It does so in fp64, because in fp32
1 - beta2^t has only four digits for small t. The third kernel reads these factors; the host reads nothing.
"""

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# values held by one program at a time
_BLOCK = 1024
# most parts of the norm's sum
_MAX_PARTS = 512
# as in torch.nn.utils.clip_grad_norm_
_CLIP_EPS = tl.constexpr(1e-6)


@triton.jit
def clip_adam_square_sum_kernel(p_gradient, p_part, num_values, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    i_program = tl.program_id(0)
    b_sum = tl.zeros([BLOCK], tl.float32)
    for i_block in range(BLOCKS):
        o_value = (i_program * BLOCKS + i_block).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        b_gradient = tl.load(p_gradient + o_value, mask=o_value < num_values, other=0.0)
        b_sum += b_gradient * b_gradient
    tl.store(p_part + i_program, tl.sum(b_sum, axis=0))


@triton.jit
def clip_adam_decide_kernel(
    p_part, p_loss, p_rate, p_update, p_is_finite, p_norm, p_factor,
    num_parts, CLIP: tl.constexpr,
    LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr,
    DECAY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    o_part = tl.arange(0, BLOCK)
    b_sum = tl.sum(tl.load(p_part + o_part, mask=o_part < num_parts, other=0.0), axis=0)
    b_norm = tl.sqrt_rn(b_sum)
    tl.store(p_norm, b_norm)
    # false for a NaN
    b_is_finite = (tl.load(p_is_finite) != 0) & (b_norm < float("inf"))
    if p_loss is not None:
        b_is_finite = b_is_finite & (tl.abs(tl.load(p_loss)) < float("inf"))
    tl.store(p_is_finite, b_is_finite)
    b_update = tl.load(p_update) + tl.where(b_is_finite, 1.0, 0.0)
    tl.store(p_update, b_update)
    # before the first update the correction would be 0 / 0
    b_count = tl.maximum(b_update, 1.0)
    b_rate = tl.load(p_rate)
    b_corrected = b_rate * tl.sqrt(1.0 - tl.exp(b_count * LOG_BETA2)) / (1.0 - tl.exp(b_count * LOG_BETA1))
    tl.store(p_factor, tl.minimum(tl.div_rn(CLIP, b_norm + _CLIP_EPS), 1.0))
    tl.store(p_factor + 1, (1.0 - b_rate * DECAY).to(tl.float32))
    tl.store(p_factor + 2, b_corrected.to(tl.float32))


@triton.jit
def clip_adam_update_kernel(
    p_parameter, p_gradient, p_first, p_second, p_rounded, p_is_finite, p_factor,
    num_values,
    BETA1: tl.constexpr, BETA2: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    o_value = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_value = o_value < num_values
    # without an update nothing is read, and only the gradient is written, with zeros
    m_updated = m_value & (tl.load(p_is_finite) != 0)
    b_scale, b_kept, b_rate = tl.load(p_factor), tl.load(p_factor + 1), tl.load(p_factor + 2)
    b_gradient = tl.load(p_gradient + o_value, mask=m_updated, other=0.0) * b_scale
    b_first = tl.load(p_first + o_value, mask=m_updated, other=0.0) * BETA1 + (1 - BETA1) * b_gradient
    b_second = tl.load(p_second + o_value, mask=m_updated, other=0.0) * BETA2 + (1 - BETA2) * b_gradient * b_gradient
    b_parameter = tl.load(p_parameter + o_value, mask=m_updated, other=0.0) * b_kept
    b_parameter -= b_rate * tl.div_rn(b_first, tl.sqrt_rn(b_second) + EPS)
    tl.store(p_parameter + o_value, b_parameter, mask=m_updated)
    if p_rounded is not None:
        tl.store(p_rounded + o_value, b_parameter.to(p_rounded.dtype.element_ty), mask=m_updated)
    tl.store(p_first + o_value, b_first, mask=m_updated)
    tl.store(p_second + o_value, b_second, mask=m_updated)
    tl.store(p_gradient + o_value, tl.zeros([BLOCK], tl.float32), mask=m_value)


def parts(num_values: int) -> tuple[int, int]:
    """Returns how many programs sum the squares of a buffer, and how many blocks each of them sums."""
    num_blocks = triton.cdiv(num_values, _BLOCK)
    # a power of two, so that few sizes need a compilation of their own
    per_program = triton.next_power_of_2(triton.cdiv(num_blocks, _MAX_PARTS))
    return triton.cdiv(num_blocks, per_program), per_program


def _square_sums(gradients: list[Tensor]) -> Tensor:
    """Returns the parts of the sum of squares over all buffers, [parts] fp32."""
    launches = [parts(gradient.numel()) for gradient in gradients]
    part = empty(gradients[0], sum(programs for programs, _ in launches))
    begin = 0
    for gradient, (programs, per_program) in zip(gradients, launches, strict=True):
        arguments = {"p_gradient": gradient, "p_part": part[begin:], "num_values": gradient.numel()}
        clip_adam_square_sum_kernel[(programs,)](**arguments, BLOCKS=per_program, BLOCK=_BLOCK, num_warps=4)
        begin += programs
    return part


def clip_adam(
    buffers: list[Tensor],
    rounded: list[Tensor | None],
    rate: Tensor,
    update: Tensor,
    is_finite: Tensor,
    constants: list[float],
    loss: Tensor | None,
) -> Tensor:
    """Clips the gradients, updates parameters and moments in place, and zeroes the gradients.

    Args:
        buffers: contiguous fp32 [n]: p, g, m and v of some parameters, of the next ones, and so on.
        rounded: r of each p, [n] fp32, fp16 or bf16; None where there is none.
        rate: [] fp64 learning rate.
        update: [] fp64 number of updates so far, counted up in place.
        is_finite: [] bool, whether to update; set to False in place if the norm or the loss is not finite.
        constants: clip norm, beta1, beta2, eps, weight decay.
        loss: [] fp32, fp16 or bf16; None for no loss to look at.
    Returns:
        [] fp32 global norm before clipping.
    """
    clip, beta1, beta2, eps, decay = constants
    fixed = {"CLIP": clip, "LOG_BETA1": _log(beta1), "LOG_BETA2": _log(beta2), "DECAY": decay}
    with device_of(rate):
        part = _square_sums(buffers[1::4])
        norm, factor = empty(rate), empty(rate, 3)
        state: dict[str, Any] = {"p_rate": rate, "p_update": update, "p_is_finite": is_finite, "p_norm": norm}
        state |= {"p_part": part, "p_loss": loss, "p_factor": factor}
        sizes = {"num_parts": part.numel(), "BLOCK": triton.next_power_of_2(part.numel())}
        clip_adam_decide_kernel[(1,)](**state, **fixed, **sizes, num_warps=4)
        shared = {"p_is_finite": is_finite, "p_factor": factor, "BETA1": beta1, "BETA2": beta2, "EPS": eps}
        for index, copy in enumerate(rounded):
            _launch_update(buffers[4 * index : 4 * index + 4], copy, shared)
    return norm


def _launch_update(buffers: list[Tensor], rounded: Tensor | None, shared: dict[str, Any]) -> None:
    """Updates p with its g, m, v and r."""
    num_values = buffers[0].numel()
    pointers: dict[str, Any] = dict(zip(("p_parameter", "p_gradient", "p_first", "p_second"), buffers, strict=True))
    pointers |= {"p_rounded": rounded, **shared}
    grid = (triton.cdiv(num_values, _BLOCK),)
    # 4 values a thread: with 8, and a copy to write, registers spill
    clip_adam_update_kernel[grid](**pointers, num_values=num_values, BLOCK=_BLOCK, num_warps=8)


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf
