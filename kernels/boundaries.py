"""Start and end of each proposal, forward and backward.

With member [K, E], a the importance, c and w centers and widths, g the share that the proposal shrinks by:

    left = sum_e member a (c - w / 2)      right = sum_e member a (c + w / 2)      i = g (right - left) / 2
    start = max(left + i, 0)               end = min(right - i, 1)

    dx = dstart where left + i >= 0        dy = dend where right - i <= 1          di = dx - dy
    dleft = dx - g di / 2                  dright = dy + g di / 2
    da = member^T (dleft (c - w / 2) + dright (c + w / 2))
    dc = a member^T (dleft + dright)       dw = a member^T (dright - dleft) / 2

One program per sample. As in the equation, a NaN in one component makes the results of all its sample's proposals NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty


@triton.jit
def _sides(
    p_center,
    p_width,
    p_importance,
    p_group,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Loads a sample.

    Returns offsets of proposals [K] and of components [E], which components exist [E], their sides and importance [E],
    membership [K, E], and the proposals' sides before shrinking [K].
    """
    o_k, o_e = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_E)
    m_e = o_e < E
    o_row = tl.program_id(0).to(tl.int64) * E + o_e
    b_center = tl.load(p_center + o_row, mask=m_e, other=0.0).to(tl.float32)
    b_half = tl.load(p_width + o_row, mask=m_e, other=0.0).to(tl.float32) / 2
    b_importance = tl.load(p_importance + o_row, mask=m_e, other=0.0).to(tl.float32)
    b_group = tl.load(p_group + o_e, mask=m_e, other=-1)
    b_member = ((o_k[:, None] == b_group[None, :]) & (o_k < K)[:, None]).to(tl.float32)
    b_low, b_high = b_center - b_half, b_center + b_half
    b_left = tl.sum(b_member * (b_importance * b_low)[None, :], axis=1)
    b_right = tl.sum(b_member * (b_importance * b_high)[None, :], axis=1)
    return o_k, o_row, m_e, b_low, b_high, b_importance, b_member, b_left, b_right


@triton.jit
def boundaries_fwd_kernel(
    p_center,
    p_width,
    p_importance,
    p_group,
    p_start,
    p_end,
    SHRINK: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    o_k, o_row, m_e, b_low, b_high, b_importance, b_member, b_left, b_right = _sides(
        p_center, p_width, p_importance, p_group, K, E, BLOCK_K, BLOCK_E
    )
    b_inward = SHRINK * (b_right - b_left) / 2
    b_start, b_end = b_left + b_inward, b_right - b_inward
    o_proposal = tl.program_id(0).to(tl.int64) * K + o_k
    # tl.minimum and tl.maximum would hide a NaN
    tl.store(p_start + o_proposal, tl.where(b_start < 0, 0.0, b_start), mask=o_k < K)
    tl.store(p_end + o_proposal, tl.where(b_end > 1, 1.0, b_end), mask=o_k < K)


@triton.jit
def boundaries_bwd_kernel(
    p_center,
    p_width,
    p_importance,
    p_group,
    p_grad_start,
    p_grad_end,
    p_grad_center,
    p_grad_width,
    p_grad_importance,
    SHRINK: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    o_k, o_row, m_e, b_low, b_high, b_importance, b_member, b_left, b_right = _sides(
        p_center, p_width, p_importance, p_group, K, E, BLOCK_K, BLOCK_E
    )
    b_inward = SHRINK * (b_right - b_left) / 2
    o_proposal = tl.program_id(0).to(tl.int64) * K + o_k
    b_grad_start = tl.load(p_grad_start + o_proposal, mask=o_k < K, other=0.0).to(tl.float32)
    b_grad_end = tl.load(p_grad_end + o_proposal, mask=o_k < K, other=0.0).to(tl.float32)
    b_grad_start = tl.where(b_left + b_inward >= 0, b_grad_start, 0.0)
    b_grad_end = tl.where(b_right - b_inward <= 1, b_grad_end, 0.0)
    b_grad_inward = SHRINK * (b_grad_start - b_grad_end) / 2
    # [E], gradient of the proposal that a component belongs to
    b_grad_left = tl.sum(b_member * (b_grad_start - b_grad_inward)[:, None], axis=0)
    b_grad_right = tl.sum(b_member * (b_grad_end + b_grad_inward)[:, None], axis=0)
    tl.store(p_grad_center + o_row, b_importance * (b_grad_left + b_grad_right), mask=m_e)
    tl.store(p_grad_width + o_row, b_importance * (b_grad_right - b_grad_left) / 2, mask=m_e)
    tl.store(p_grad_importance + o_row, b_grad_left * b_low + b_grad_right * b_high, mask=m_e)


def _blocks(num_groups: int, num_components: int) -> dict[str, int]:
    return {"BLOCK_K": triton.next_power_of_2(num_groups), "BLOCK_E": triton.next_power_of_2(num_components)}


def boundaries_fwd(
    center: Tensor, width: Tensor, importance: Tensor, group: Tensor, num_groups: int, shrink: float
) -> tuple[Tensor, Tensor]:
    """Start and end of each proposal.

    Args:
        center, width, importance: [B, E] fp32, fp16 or bf16.
        group: [E] integers.
        num_groups: K.
        shrink: gamma, the share that a proposal shrinks by.
    Returns:
        start, end: [B, K] fp32.
    """
    center, width, importance, group = (x.contiguous() for x in (center, width, importance, group))
    num_samples, num_components = center.shape
    start, end = (empty(center, num_samples, num_groups) for _ in range(2))
    with device_of(center):
        boundaries_fwd_kernel[(num_samples,)](
            p_center=center,
            p_width=width,
            p_importance=importance,
            p_group=group,
            p_start=start,
            p_end=end,
            SHRINK=shrink,
            K=num_groups,
            E=num_components,
            **_blocks(num_groups, num_components),
        )
    return start, end


def boundaries_bwd(
    grad_start: Tensor,
    grad_end: Tensor,
    center: Tensor,
    width: Tensor,
    importance: Tensor,
    group: Tensor,
    shrink: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of center, width and importance, [B, E] fp32.

    Args:
        grad_start, grad_end: [B, K] gradients of start and end.
        center, width, importance, group, shrink: as in the forward pass.
    """
    grad_start, grad_end = grad_start.contiguous(), grad_end.contiguous()
    center, width, importance, group = (x.contiguous() for x in (center, width, importance, group))
    (num_samples, num_components), num_groups = center.shape, grad_start.shape[1]
    grad_center, grad_width, grad_importance = (empty(center, *center.shape) for _ in range(3))
    with device_of(center):
        boundaries_bwd_kernel[(num_samples,)](
            p_center=center,
            p_width=width,
            p_importance=importance,
            p_group=group,
            p_grad_start=grad_start,
            p_grad_end=grad_end,
            p_grad_center=grad_center,
            p_grad_width=grad_width,
            p_grad_importance=grad_importance,
            SHRINK=shrink,
            K=num_groups,
            E=num_components,
            **_blocks(num_groups, num_components),
        )
    return grad_center, grad_width, grad_importance
