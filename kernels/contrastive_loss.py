"""The contrastive loss of the reconstruction L_ivc, forward and backward.

    x = best - whole + beta_1        x_j = best - negative_j + beta_2
    L = mean of h(x) + sum_j h(x_j) over samples and their best,  h(x) = max(x, 0)
    dbest = g (h'(x) + sum_j h'(x_j)),  dnegative_j = -g h'(x_j),  dwhole = -g sum over the best of h'(x)
    g = dL / (B N),  h'(0) = 1/2, as torch.maximum divides a gradient between equal numbers

In the forward pass a single program takes all samples, so that the mean is one launch.

Letters: B samples, N best proposals of a sample, J easy negatives of a proposal.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# best proposals held by one program at a time
_BLOCK_ELEMENTS = 1024


@triton.jit
def _best_and_whole(p_best, p_whole, o_sample, num_samples, N: tl.constexpr, BLOCK_N: tl.constexpr):
    """Returns offsets of the best proposals, which of them exist, and C of these and of whole videos, [B, N] each."""
    o_n = tl.arange(0, BLOCK_N)
    m_best = (o_sample < num_samples)[:, None] & (o_n < N)[None, :]
    o_best = o_sample[:, None] * N + o_n[None, :]
    b_best = tl.load(p_best + o_best, mask=m_best, other=0.0).to(tl.float32)
    b_whole = tl.load(p_whole + o_sample, mask=o_sample < num_samples, other=0.0).to(tl.float32)
    return o_best, m_best, b_best, b_whole[:, None]


@triton.jit(do_not_specialize=["num_samples"])
def contrastive_loss_fwd_kernel(
    p_best,
    p_whole,
    p_negative,
    p_loss,
    num_samples,
    WHOLE_MARGIN: tl.constexpr,
    NEGATIVE_MARGIN: tl.constexpr,
    N: tl.constexpr,
    J: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    b_sum = tl.zeros([BLOCK_B, BLOCK_N], tl.float32)
    for i_sample in range(0, num_samples, BLOCK_B):
        o_sample = i_sample + tl.arange(0, BLOCK_B).to(tl.int64)
        o_best, m_best, b_best, b_whole = _best_and_whole(p_best, p_whole, o_sample, num_samples, N, BLOCK_N)
        b_x = b_best - b_whole + WHOLE_MARGIN
        # not maximum, which hides a NaN
        b_loss = tl.where(b_x < 0, 0.0, b_x)
        for i_negative in range(J):
            b_negative = tl.load(p_negative + o_best * J + i_negative, mask=m_best, other=0.0).to(tl.float32)
            b_x = b_best - b_negative + NEGATIVE_MARGIN
            b_loss += tl.where(b_x < 0, 0.0, b_x)
        b_sum += tl.where(m_best, b_loss, 0.0)
    tl.store(p_loss, tl.sum(b_sum) / (num_samples * N))


@triton.jit(do_not_specialize=["num_samples"])
def contrastive_loss_bwd_kernel(
    p_grad,
    p_best,
    p_whole,
    p_negative,
    p_grad_best,
    p_grad_whole,
    p_grad_negative,
    num_samples,
    WHOLE_MARGIN: tl.constexpr,
    NEGATIVE_MARGIN: tl.constexpr,
    N: tl.constexpr,
    J: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    o_sample = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    o_best, m_best, b_best, b_whole = _best_and_whole(p_best, p_whole, o_sample, num_samples, N, BLOCK_N)
    b_share = tl.load(p_grad).to(tl.float32) / (num_samples * N)
    b_x = b_best - b_whole + WHOLE_MARGIN
    b_grad = tl.where(m_best & (b_x >= 0), tl.where(b_x == 0, 0.5 * b_share, b_share), 0.0)
    tl.store(p_grad_whole + o_sample, -tl.sum(b_grad, axis=1), mask=o_sample < num_samples)
    for i_negative in range(J):
        o_negative = o_best * J + i_negative
        b_negative = tl.load(p_negative + o_negative, mask=m_best, other=0.0).to(tl.float32)
        b_x = b_best - b_negative + NEGATIVE_MARGIN
        b_part = tl.where(b_x < 0, 0.0, tl.where(b_x == 0, 0.5 * b_share, b_share))
        tl.store(p_grad_negative + o_negative, -b_part, mask=m_best)
        b_grad += b_part
    tl.store(p_grad_best + o_best, b_grad, mask=m_best)


def _blocks(num_samples: int, num_best: int) -> dict[str, int]:
    block_n = triton.next_power_of_2(num_best)
    block_b = min(triton.next_power_of_2(num_samples), max(_BLOCK_ELEMENTS // block_n, 1))
    return {"BLOCK_B": block_b, "BLOCK_N": block_n}


def contrastive_loss_fwd(
    best: Tensor, whole: Tensor, negative: Tensor, whole_margin: float, negative_margin: float
) -> Tensor:
    """L_ivc.

    Args:
        best: [B, N] fp32, fp16 or bf16, C of the best proposals.
        whole: [B] of the whole videos.
        negative: [B, N, J] of the easy negatives.
        whole_margin, negative_margin: beta_1 and beta_2.
    Returns:
        [] fp32.
    """
    best, whole, negative = best.contiguous(), whole.contiguous(), negative.contiguous()
    (num_samples, num_best, num_negatives), loss = negative.shape, empty(best)
    with device_of(best):
        contrastive_loss_fwd_kernel[(1,)](
            p_best=best,
            p_whole=whole,
            p_negative=negative,
            p_loss=loss,
            num_samples=num_samples,
            WHOLE_MARGIN=whole_margin,
            NEGATIVE_MARGIN=negative_margin,
            N=num_best,
            J=num_negatives,
            **_blocks(num_samples, num_best),
        )
    return loss


def contrastive_loss_bwd(
    grad: Tensor, best: Tensor, whole: Tensor, negative: Tensor, whole_margin: float, negative_margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of best, whole and negative in their shapes, fp32, from that of the loss [] and the inputs."""
    best, whole, negative = best.contiguous(), whole.contiguous(), negative.contiguous()
    num_samples, num_best, num_negatives = negative.shape
    grad_best, grad_whole, grad_negative = (empty(best, *x.shape) for x in (best, whole, negative))
    blocks = _blocks(num_samples, num_best)
    with device_of(best):
        contrastive_loss_bwd_kernel[(triton.cdiv(num_samples, blocks["BLOCK_B"]),)](
            p_grad=grad,
            p_best=best,
            p_whole=whole,
            p_negative=negative,
            p_grad_best=grad_best,
            p_grad_whole=grad_whole,
            p_grad_negative=grad_negative,
            num_samples=num_samples,
            WHOLE_MARGIN=whole_margin,
            NEGATIVE_MARGIN=negative_margin,
            N=num_best,
            J=num_negatives,
            **blocks,
        )
    return grad_best, grad_whole, grad_negative
