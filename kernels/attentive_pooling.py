"""From component masks to proposals, forward and backward (Eqs. 10 and 4, and the mixture without importance).

    importance     w_i = exp(s_i - max s) / sum exp(s - max s)  over i's proposal
                   ds_i = w_i (dw_i - sum w dw)
    mixture        P = sum w m,  l = log q,  q = sum w m',  m' = m + MASK_FLOOR
                   dm = w dP,  d log m' = w m' / q dl,  dw = <m, dP> + <m' / q, dl>
    peak_mixture   P = n / p,  n = sum m,  p = max(n*, PEAK_FLOOR),  n* = n at the first arg-max t*
                   l = log(P + MASK_FLOOR)
                   dm = (g - [t = t*] <g, P>) / p,  g = dP + dl / (P + MASK_FLOOR)
                   the second term is 0 where n* is below PEAK_FLOOR

In the forward pass one program computes a mixture; in the backward pass one program handles a block of components.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import contiguous, device_of, empty, incoming

# as in the equation
MASK_FLOOR = tl.constexpr(1e-10)
# elements of masks held by one program
_FWD_ELEMENTS = 2048
_BWD_ELEMENTS = 1024


@triton.jit
def _pairs(p_group, K: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr):
    """Returns offsets [E], components that belong to a proposal [E], and pairs that belong to the same one [E, E]."""
    o_e = tl.arange(0, BLOCK_E)
    b_group = tl.load(p_group + o_e, mask=o_e < E, other=-1)
    m_e = (b_group >= 0) & (b_group < K)
    return o_e, m_e, (b_group[:, None] == b_group[None, :]) & m_e[:, None] & m_e[None, :]


@triton.jit
def importance_fwd_kernel(p_score, p_group, p_importance, K: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr):
    i_sample = tl.program_id(0).to(tl.int64)
    o_e, m_e, is_same = _pairs(p_group, K, E, BLOCK_E)
    b_score = tl.load(p_score + i_sample * E + o_e, mask=m_e, other=0.0).to(tl.float32)
    b_peak = tl.max(tl.where(is_same, b_score[None, :], float("-inf")), axis=1)
    # a component of no proposal has no peak
    b_peak = tl.where(m_e, b_peak, 0.0)
    # scores of other proposals may lie far above the peak
    b_exponent = tl.where(is_same, b_score[None, :] - b_peak[:, None], float("-inf"))
    b_sum = tl.sum(tl.exp(b_exponent), axis=1)
    b_importance = tl.where(m_e, tl.exp(b_score - b_peak) / tl.where(m_e, b_sum, 1.0), 0.0)
    tl.store(p_importance + i_sample * E + o_e, b_importance, mask=o_e < E)


@triton.jit
def importance_bwd_kernel(
    p_importance, p_group, p_grad, p_grad_score, K: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr
):
    i_sample = tl.program_id(0).to(tl.int64)
    o_e, m_e, is_same = _pairs(p_group, K, E, BLOCK_E)
    b_importance = tl.load(p_importance + i_sample * E + o_e, mask=m_e, other=0.0)
    b_grad = tl.load(p_grad + i_sample * E + o_e, mask=m_e, other=0.0).to(tl.float32)
    b_mean = tl.sum(tl.where(is_same, (b_importance * b_grad)[None, :], 0.0), axis=1)
    tl.store(p_grad_score + i_sample * E + o_e, b_importance * (b_grad - b_mean), mask=o_e < E)


@triton.jit
def _summed(
    p_masks,
    p_importance,
    p_group,
    HAS_IMPORTANCE: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Returns a proposal's index, offsets [T], sums of its (weighted) masks [T], and the sum of its weights."""
    i_proposal = tl.program_id(0).to(tl.int64)
    i_sample = i_proposal // K
    o_t = tl.arange(0, BLOCK_T)
    b_total = tl.zeros([BLOCK_E, BLOCK_T], dtype=tl.float32)
    b_weight = tl.zeros([BLOCK_E], dtype=tl.float32)
    for i_e in range(0, E, BLOCK_E):
        o_e = i_e + tl.arange(0, BLOCK_E)
        b_group = tl.load(p_group + o_e, mask=o_e < E, other=-1)
        m_e = b_group == i_proposal % K
        m_all = m_e[:, None] & (o_t < T)[None, :]
        o_row = i_sample * E + o_e
        b_masks = tl.load(p_masks + o_row[:, None] * T + o_t[None, :], mask=m_all, other=0.0).to(tl.float32)
        if HAS_IMPORTANCE:
            b_importance = tl.load(p_importance + o_row, mask=m_e, other=0.0).to(tl.float32)
            b_masks *= b_importance[:, None]
            b_weight += b_importance
        b_total += b_masks
    return i_proposal, o_t, tl.sum(b_total, axis=0), tl.sum(b_weight, axis=0)


@triton.jit
def mixture_fwd_kernel(
    p_masks,
    p_importance,
    p_group,
    p_mixture,
    p_log,
    K: tl.constexpr,
    E: tl.constexpr,
    T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    i_proposal, o_t, b_sum, b_weight = _summed(p_masks, p_importance, p_group, True, K, E, T, BLOCK_E, BLOCK_T)
    tl.store(p_mixture + i_proposal * T + o_t, b_sum, mask=o_t < T)
    # a proposal without components is 0 everywhere, and its log is that of the floor
    b_floor = MASK_FLOOR * tl.where(b_weight > 0, b_weight, 1.0)
    tl.store(p_log + i_proposal * T + o_t, tl.log(b_sum + b_floor), mask=o_t < T)


@triton.jit
def peak_mixture_fwd_kernel(
    p_masks,
    p_group,
    p_mixture,
    p_log,
    p_peak,
    p_peak_position,
    PEAK_FLOOR: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    i_proposal, o_t, b_sum, _ = _summed(p_masks, p_masks, p_group, False, K, E, T, BLOCK_E, BLOCK_T)
    b_existing = tl.where(o_t < T, b_sum, float("-inf"))
    b_peak = tl.max(b_existing, axis=0)
    # rounded correctly, so that the peak is exactly 1
    b_mixture = tl.div_rn(b_sum, tl.zeros_like(b_sum) + tl.maximum(b_peak, PEAK_FLOOR))
    tl.store(p_mixture + i_proposal * T + o_t, b_mixture, mask=o_t < T)
    tl.store(p_log + i_proposal * T + o_t, tl.log(b_mixture + MASK_FLOOR), mask=o_t < T)
    tl.store(p_peak + i_proposal, b_peak)
    tl.store(p_peak_position + i_proposal, tl.argmax(b_existing, axis=0).to(tl.float32))


@triton.jit
def _rows(
    p_group, num_rows, K: tl.constexpr, E: tl.constexpr, T: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr
):
    """Returns rows, offsets of their proposals and of positions, and masks of what exists and of what is mixed."""
    o_row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_t = tl.arange(0, BLOCK_T)
    m_row = o_row < num_rows
    b_group = tl.load(p_group + o_row % E, mask=m_row, other=-1)
    m_mixed = (b_group >= 0) & (b_group < K)
    o_proposal = (o_row // E) * K + b_group
    m_t = (o_t < T)[None, :]
    return o_row, o_proposal, o_t, m_row, m_mixed, m_row[:, None] & m_t, m_mixed[:, None] & m_t


@triton.jit(do_not_specialize=["num_rows"])
def mixture_bwd_kernel(
    p_masks,
    p_importance,
    p_group,
    p_log,
    p_grad,
    p_grad_log,
    p_grad_masks,
    p_grad_log_masks,
    p_grad_importance,
    num_rows,
    K: tl.constexpr,
    E: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row, o_proposal, o_t, m_row, m_mixed, m_all, m_read = _rows(p_group, num_rows, K, E, T, BLOCK_R, BLOCK_T)
    o_all = o_row[:, None] * T + o_t[None, :]
    o_read = o_proposal[:, None] * T + o_t[None, :]
    b_grad, b_grad_log = incoming(p_grad, o_read, m_read), incoming(p_grad_log, o_read, m_read)
    b_masks = tl.load(p_masks + o_all, mask=m_read, other=0.0).to(tl.float32)
    b_importance = tl.load(p_importance + o_row, mask=m_mixed, other=0.0).to(tl.float32)
    # (m + floor) / q, at most 1 / w
    b_share = (b_masks + MASK_FLOOR) * tl.exp(-tl.load(p_log + o_read, mask=m_read, other=0.0)) * b_grad_log
    tl.store(p_grad_masks + o_all, b_importance[:, None] * b_grad, mask=m_all)
    tl.store(p_grad_log_masks + o_all, b_importance[:, None] * b_share, mask=m_all)
    tl.store(p_grad_importance + o_row, tl.sum(b_masks * b_grad + b_share, axis=1), mask=m_row)


@triton.jit(do_not_specialize=["num_rows"])
def peak_mixture_bwd_kernel(
    p_group,
    p_mixture,
    p_peak,
    p_peak_position,
    p_grad,
    p_grad_log,
    p_grad_masks,
    num_rows,
    PEAK_FLOOR: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row, o_proposal, o_t, m_row, m_mixed, m_all, m_read = _rows(p_group, num_rows, K, E, T, BLOCK_R, BLOCK_T)
    o_read = o_proposal[:, None] * T + o_t[None, :]
    b_mixture = tl.load(p_mixture + o_read, mask=m_read, other=0.0)
    b_grad = incoming(p_grad, o_read, m_read) + incoming(p_grad_log, o_read, m_read) / (b_mixture + MASK_FLOOR)
    b_peak = tl.load(p_peak + o_proposal, mask=m_mixed, other=1.0)
    b_peak_position = tl.load(p_peak_position + o_proposal, mask=m_mixed, other=0.0).to(tl.int32)
    b_along = tl.where(b_peak >= PEAK_FLOOR, tl.sum(b_grad * b_mixture, axis=1), 0.0)
    b_grad -= tl.where(o_t[None, :] == b_peak_position[:, None], b_along[:, None], 0.0)
    b_grad /= tl.maximum(b_peak, PEAK_FLOOR)[:, None]
    tl.store(p_grad_masks + o_row[:, None] * T + o_t[None, :], b_grad, mask=m_all)


def _fwd_blocks(num_components: int, num_positions: int) -> dict[str, int]:
    block_t = triton.next_power_of_2(num_positions)
    block_e = min(triton.next_power_of_2(num_components), max(_FWD_ELEMENTS // block_t, 1))
    return {"BLOCK_E": block_e, "BLOCK_T": block_t}


def _bwd_blocks(num_positions: int) -> dict[str, int]:
    block_t = triton.next_power_of_2(num_positions)
    return {"BLOCK_R": max(_BWD_ELEMENTS // block_t, 1), "BLOCK_T": block_t}


def importance_fwd(score: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Importance weights, Eq. (10).

    Args:
        score: [B, E] fp32, fp16 or bf16.
        group, num_groups: [E] integers, and K.
    Returns:
        [B, E] fp32.
    """
    score, group = score.contiguous(), group.contiguous()
    num_samples, num_components = score.shape
    importance = empty(score, *score.shape)
    with device_of(score):
        importance_fwd_kernel[(num_samples,)](
            p_score=score,
            p_group=group,
            p_importance=importance,
            K=num_groups,
            E=num_components,
            BLOCK_E=triton.next_power_of_2(num_components),
        )
    return importance


def importance_bwd(grad: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Gradient of the scores, [B, E] fp32, from that of the weights and from the forward pass's result, both [B, E]."""
    grad, group = grad.contiguous(), group.contiguous()
    num_samples, num_components = importance.shape
    grad_score = empty(importance, *importance.shape)
    with device_of(importance):
        importance_bwd_kernel[(num_samples,)](
            p_importance=importance,
            p_group=group,
            p_grad=grad,
            p_grad_score=grad_score,
            K=num_groups,
            E=num_components,
            BLOCK_E=triton.next_power_of_2(num_components),
        )
    return grad_score


def mixture_fwd(masks: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Gaussian mixture proposals, Eq. (4).

    Args:
        masks: [B, E, T] fp32, fp16 or bf16.
        importance: [B, E], likewise.
        group, num_groups: [E] integers, and K.
    Returns:
        the mixture and its log, [B, K, T] fp32.
    """
    masks, importance, group = masks.contiguous(), importance.contiguous(), group.contiguous()
    num_samples, num_components, num_positions = masks.shape
    mixture, log = (empty(masks, num_samples, num_groups, num_positions) for _ in range(2))
    with device_of(masks):
        mixture_fwd_kernel[(num_samples * num_groups,)](
            p_masks=masks,
            p_importance=importance,
            p_group=group,
            p_mixture=mixture,
            p_log=log,
            K=num_groups,
            E=num_components,
            T=num_positions,
            **_fwd_blocks(num_components, num_positions),
        )
    return mixture, log


def mixture_bwd(
    grad: Tensor | None, grad_log: Tensor | None, masks: Tensor, importance: Tensor, group: Tensor, log: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of masks and of their logs, [B, E, T], and of importance [B, E], all fp32.

    Args:
        grad, grad_log: [B, K, T] of the mixture and of its log; None for none.
        masks, importance, group: as in the forward pass.
        log: [B, K, T] second result of the forward pass.
    """
    num_samples, num_components, num_positions = masks.shape
    num_rows, blocks = num_samples * num_components, _bwd_blocks(num_positions)
    grad_masks, grad_log_masks, grad_importance = (empty(masks, *x.shape) for x in (masks, masks, importance))
    with device_of(masks):
        mixture_bwd_kernel[(triton.cdiv(num_rows, blocks["BLOCK_R"]),)](
            p_masks=masks.contiguous(),
            p_importance=importance.contiguous(),
            p_group=group.contiguous(),
            p_log=log,
            p_grad=contiguous(grad),
            p_grad_log=contiguous(grad_log),
            p_grad_masks=grad_masks,
            p_grad_log_masks=grad_log_masks,
            p_grad_importance=grad_importance,
            num_rows=num_rows,
            K=log.shape[1],
            E=num_components,
            T=num_positions,
            **blocks,
        )
    return grad_masks, grad_log_masks, grad_importance


def peak_mixture_fwd(
    masks: Tensor, group: Tensor, num_groups: int, peak_floor: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of a proposal's masks over their peak.

    Args:
        masks, group, num_groups: as `mixture_fwd`.
        peak_floor: sums are divided by at least this.
    Returns:
        the mixture and its log [B, K, T], peaks of the sums [B, K] and their first positions [B, K], all fp32.
    """
    masks, group = masks.contiguous(), group.contiguous()
    num_samples, num_components, num_positions = masks.shape
    mixture, log = (empty(masks, num_samples, num_groups, num_positions) for _ in range(2))
    peak, argmax = empty(masks, num_samples, num_groups), empty(masks, num_samples, num_groups)
    with device_of(masks):
        peak_mixture_fwd_kernel[(num_samples * num_groups,)](
            p_masks=masks,
            p_group=group,
            p_mixture=mixture,
            p_log=log,
            p_peak=peak,
            p_peak_position=argmax,
            PEAK_FLOOR=peak_floor,
            K=num_groups,
            E=num_components,
            T=num_positions,
            **_fwd_blocks(num_components, num_positions),
        )
    return mixture, log, peak, argmax


def peak_mixture_bwd(
    grad: Tensor | None,
    grad_log: Tensor | None,
    mixture: Tensor,
    peak: Tensor,
    argmax: Tensor,
    group: Tensor,
    peak_floor: float,
) -> Tensor:
    """Gradient of the masks, [B, E, T] fp32.

    Args:
        grad, grad_log: [B, K, T] of the mixture and of its log; None for none.
        mixture, peak, argmax: first, third and fourth result of the forward pass; group, peak_floor: its inputs.
    """
    (num_samples, num_groups, num_positions), num_components = mixture.shape, group.numel()
    num_rows, blocks = num_samples * num_components, _bwd_blocks(num_positions)
    grad_masks = empty(mixture, num_samples, num_components, num_positions)
    with device_of(mixture):
        peak_mixture_bwd_kernel[(triton.cdiv(num_rows, blocks["BLOCK_R"]),)](
            p_group=group.contiguous(),
            p_mixture=mixture,
            p_peak=peak,
            p_peak_position=argmax,
            p_grad=contiguous(grad),
            p_grad_log=contiguous(grad_log),
            p_grad_masks=grad_masks,
            num_rows=num_rows,
            PEAK_FLOOR=peak_floor,
            K=num_groups,
            E=num_components,
            T=num_positions,
            **blocks,
        )
    return grad_masks
