"""Logs of Gaussian mixture proposals from logs of masks, forward and backward (log P of Eq. 4).

    y = log sum_i exp z_i,  z_i = x_i + log max(w_i, TINY)  over the components i of a proposal
    dx_i = exp(z_i - y) dy        dw_i = sum_t dx_i / w_i, and 0 where w_i is below TINY

In the forward pass one program computes a mixture, in two passes over its components: their maximum, then the sum. In
the backward pass one program handles a block of components.

Letters: R rows (components of all samples) of a program.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# smallest normal number in fp32, as in the equation
TINY = tl.constexpr(1.1754943508222875e-38)
# elements of exponents held by one program
_FWD_ELEMENTS = 2048
_BWD_ELEMENTS = 1024


@triton.jit
def _terms(p_exponents, p_importance, o_row, m_row, o_t, T: tl.constexpr):
    """Returns weights [R], 1 where there is no row, and z [R, T], without the first term where there is no position."""
    b_importance = tl.load(p_importance + o_row, mask=m_row, other=1.0).to(tl.float32)
    m_all = m_row[:, None] & (o_t < T)[None, :]
    b_exponents = tl.load(p_exponents + o_row[:, None] * T + o_t[None, :], mask=m_all, other=0.0).to(tl.float32)
    # not maximum, which hides a NaN
    return b_importance, b_exponents + tl.log(tl.where(b_importance < TINY, TINY, b_importance))[:, None]


@triton.jit
def mixture_exponent_fwd_kernel(
    p_exponents,
    p_importance,
    p_group,
    p_mixture,
    K: tl.constexpr,
    E: tl.constexpr,
    T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    i_proposal = tl.program_id(0).to(tl.int64)
    o_t = tl.arange(0, BLOCK_T)
    b_peak = tl.full([BLOCK_T], float("-inf"), tl.float32)
    for i_e in range(0, E, BLOCK_E):
        o_e = i_e + tl.arange(0, BLOCK_E)
        m_e = tl.load(p_group + o_e, mask=o_e < E, other=-1) == i_proposal % K
        _, b_terms = _terms(p_exponents, p_importance, i_proposal // K * E + o_e, m_e, o_t, T)
        b_peak = tl.maximum(b_peak, tl.max(tl.where(m_e[:, None], b_terms, float("-inf")), axis=0))
    b_sum = tl.zeros([BLOCK_T], tl.float32)
    for i_e in range(0, E, BLOCK_E):
        o_e = i_e + tl.arange(0, BLOCK_E)
        m_e = tl.load(p_group + o_e, mask=o_e < E, other=-1) == i_proposal % K
        _, b_terms = _terms(p_exponents, p_importance, i_proposal // K * E + o_e, m_e, o_t, T)
        b_sum += tl.sum(tl.exp(tl.where(m_e[:, None], b_terms - b_peak[None, :], float("-inf"))), axis=0)
    tl.store(p_mixture + i_proposal * T + o_t, b_peak + tl.log(b_sum), mask=o_t < T)


@triton.jit(do_not_specialize=["num_rows"])
def mixture_exponent_bwd_kernel(
    p_exponents,
    p_importance,
    p_group,
    p_mixture,
    p_grad,
    p_grad_exponents,
    p_grad_importance,
    num_rows,
    K: tl.constexpr,
    E: tl.constexpr,
    T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    o_row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_t = tl.arange(0, BLOCK_T)
    m_row, m_t = o_row < num_rows, (o_t < T)[None, :]
    b_group = tl.load(p_group + o_row % E, mask=m_row, other=-1)
    # a component of no proposal gets a gradient of 0
    m_read = ((b_group >= 0) & (b_group < K))[:, None] & m_t
    o_read = ((o_row // E) * K + b_group)[:, None] * T + o_t[None, :]
    b_importance, b_terms = _terms(p_exponents, p_importance, o_row, m_row, o_t, T)
    b_mixture = tl.load(p_mixture + o_read, mask=m_read, other=0.0)
    b_grad = tl.load(p_grad + o_read, mask=m_read, other=0.0).to(tl.float32)
    b_grad *= tl.exp(tl.where(m_read, b_terms - b_mixture, float("-inf")))
    tl.store(p_grad_exponents + o_row[:, None] * T + o_t[None, :], b_grad, mask=m_row[:, None] & m_t)
    is_floored = b_importance < TINY
    b_grad_importance = tl.sum(b_grad, axis=1) / tl.where(is_floored, 1.0, b_importance)
    tl.store(p_grad_importance + o_row, tl.where(is_floored, 0.0, b_grad_importance), mask=m_row)


def _fwd_blocks(num_components: int, num_positions: int) -> dict[str, int]:
    block_t = triton.next_power_of_2(num_positions)
    block_e = min(triton.next_power_of_2(num_components), max(_FWD_ELEMENTS // block_t, 1))
    return {"BLOCK_E": block_e, "BLOCK_T": block_t}


def _bwd_blocks(num_positions: int) -> dict[str, int]:
    block_t = triton.next_power_of_2(num_positions)
    return {"BLOCK_R": max(_BWD_ELEMENTS // block_t, 1), "BLOCK_T": block_t}


def mixture_exponent_fwd(exponents: Tensor, importance: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Logs of Gaussian mixture proposals.

    Args:
        exponents: [B, E, T] fp32, fp16 or bf16.
        importance: [B, E], likewise.
        group, num_groups: [E] integers, and K; every group has a component.
    Returns:
        [B, K, T] fp32.
    """
    exponents, importance, group = exponents.contiguous(), importance.contiguous(), group.contiguous()
    num_samples, num_components, num_positions = exponents.shape
    mixture = empty(exponents, num_samples, num_groups, num_positions)
    with device_of(exponents):
        mixture_exponent_fwd_kernel[(num_samples * num_groups,)](
            p_exponents=exponents,
            p_importance=importance,
            p_group=group,
            p_mixture=mixture,
            K=num_groups,
            E=num_components,
            T=num_positions,
            **_fwd_blocks(num_components, num_positions),
        )
    return mixture


def mixture_exponent_bwd(
    grad: Tensor, exponents: Tensor, importance: Tensor, group: Tensor, mixture: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of exponents [B, E, T] and of importance [B, E], fp32.

    Args:
        grad: [B, K, T] of the result.
        exponents, importance, group: as in the forward pass.
        mixture: [B, K, T] its result.
    """
    grad, exponents, importance, group = (x.contiguous() for x in (grad, exponents, importance, group))
    num_samples, num_components, num_positions = exponents.shape
    num_rows, blocks = num_samples * num_components, _bwd_blocks(num_positions)
    grad_exponents, grad_importance = empty(exponents, *exponents.shape), empty(exponents, *importance.shape)
    with device_of(exponents):
        mixture_exponent_bwd_kernel[(triton.cdiv(num_rows, blocks["BLOCK_R"]),)](
            p_exponents=exponents,
            p_importance=importance,
            p_group=group,
            p_mixture=mixture,
            p_grad=grad,
            p_grad_exponents=grad_exponents,
            p_grad_importance=grad_importance,
            num_rows=num_rows,
            K=mixture.shape[1],
            E=num_components,
            T=num_positions,
            **blocks,
        )
    return grad_exponents, grad_importance
