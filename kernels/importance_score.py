"""Second layer of the importance's MLP (Eq. 9) with the tanh before it, forward and backward.

    s[b, e] = sum over D of u tanh(x[b, e - first]),  0 for components that no row of x stands for

    dx = ds u (1 - tanh(x)^2)       du += sum over rows of ds tanh(x)

Rows are summed first within a program, then over programs in a fixed order, so that two runs agree bitwise.

Letters: B samples, E components, N of them scored, R scores or rows of a program.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty
from pps_fast.kernels.linear_gradient import add_totals

# values held by one program
_BLOCK_ELEMENTS = 4096


@triton.jit
def _tanh(b_x):
    """Returns the hyperbolic tangent, from an exponential that cannot overflow."""
    b_small = tl.exp(-2.0 * tl.abs(b_x))
    b_size = (1.0 - b_small) / (1.0 + b_small)
    return tl.where(b_x < 0, -b_size, b_size)


@triton.jit(do_not_specialize=["num_scores", "first"])
def importance_score_fwd_kernel(
    p_x, p_outer, p_score,
    num_scores, first,
    N: tl.constexpr, E: tl.constexpr, D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    o_score = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_d = tl.arange(0, BLOCK_D)
    m_score, o_n = o_score < num_scores, o_score % E - first
    m_all = (m_score & (o_n >= 0) & (o_n < N))[:, None] & (o_d < D)[None, :]
    b_x = tl.load(p_x + (o_score // E * N + o_n)[:, None] * D + o_d[None, :], mask=m_all, other=0.0).to(tl.float32)
    b_outer = tl.load(p_outer + o_d, mask=o_d < D, other=0.0)
    # tanh(0) = 0
    tl.store(p_score + o_score, tl.sum(_tanh(b_x) * b_outer[None, :], axis=1), mask=m_score)


@triton.jit(do_not_specialize=["num_rows", "first"])
def importance_score_bwd_kernel(
    p_x, p_outer, p_grad, p_grad_x, p_part,
    num_rows, first,
    N: tl.constexpr, E: tl.constexpr, D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0).to(tl.int64)
    o_row, o_d = i_program * BLOCK_R + tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_D)
    m_row = o_row < num_rows
    o_all, m_all = o_row[:, None] * D + o_d[None, :], m_row[:, None] & (o_d < D)[None, :]
    b_grad = tl.load(p_grad + o_row // N * E + o_row % N + first, mask=m_row, other=0.0)[:, None]
    b_tanh = _tanh(tl.load(p_x + o_all, mask=m_all, other=0.0).to(tl.float32))
    b_outer = tl.load(p_outer + o_d, mask=o_d < D, other=0.0)[None, :]
    b_grad_x = b_grad * b_outer * (1.0 - b_tanh * b_tanh)
    tl.store(p_grad_x + o_all, b_grad_x.to(p_grad_x.dtype.element_ty), mask=m_all)
    tl.store(p_part + i_program * D + o_d, tl.sum(b_grad * b_tanh, axis=0), mask=o_d < D)


def blocks(width: int) -> dict[str, int]:
    """Returns block sizes of a launch."""
    block_d = triton.next_power_of_2(width)
    return {"BLOCK_R": max(_BLOCK_ELEMENTS // block_d, 1), "BLOCK_D": block_d}


def importance_score_fwd(x: Tensor, outer: Tensor, first: int, num_components: int) -> Tensor:
    """Scores of all components, Eq. (9) behind its first product.

    Args:
        x: [B, N, D] first layer's result for the scored components, fp32, fp16 or bf16.
        outer: [1, D] fp32, contiguous.
        first: component of the first row.
        num_components: E.
    Returns:
        [B, E] fp32.
    """
    x = x.contiguous()
    num_samples, num_scored, width = x.shape
    score, tile = empty(x, num_samples, num_components), blocks(width)
    with device_of(x):
        importance_score_fwd_kernel[(triton.cdiv(score.numel(), tile["BLOCK_R"]),)](
            p_x=x, p_outer=outer, p_score=score, num_scores=score.numel(), first=first,
            N=num_scored, E=num_components, D=width, **tile,
        )  # fmt: skip
    return score


def importance_score_bwd(sums: Tensor, grad: Tensor, x: Tensor, outer: Tensor, first: int) -> Tensor:
    """Gradient of the first layer's result, with that of the second layer's weight added to what is there.

    Args:
        sums: [1, D] gradient of outer, fp32, contiguous, added to in place.
        grad: [B, E] gradient of the scores.
        x, outer, first: as in the forward pass.
    Returns:
        [B, N, D] in x's dtype.
    """
    x, grad = x.contiguous(), grad.contiguous()
    num_samples, num_scored, width = x.shape
    num_rows, tile = num_samples * num_scored, blocks(width)
    grad_x = empty(x, num_samples, num_scored, width, dtype=x.dtype)
    num_programs = triton.cdiv(num_rows, tile["BLOCK_R"])
    part = empty(x, num_programs, 1, width)
    with device_of(x):
        importance_score_bwd_kernel[(num_programs,)](
            p_x=x, p_outer=outer, p_grad=grad, p_grad_x=grad_x, p_part=part, num_rows=num_rows, first=first,
            N=num_scored, E=grad.shape[1], D=width, **tile,
        )  # fmt: skip
        add_totals(part, [sums])
    return grad_x
