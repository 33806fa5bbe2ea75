"""Centers and widths of components from g_cls (Eqs. 1, 2), forward and backward, with their products.

    v[e] = m sigmoid(W[i[e]] g + b[i[e]])       m = 1 for centers, the largest width for widths

    dl[e] = dv[e] v[e] (1 - v[e] / m)
    dg = sum over e of dl[e] W[i[e]],  dW[n] += sum over samples and e with i[e] = n of dl[e] g,  db[n] likewise

The products are so small that a launch of their own would cost more than they do. They are computed in fp32 from
weights as they are. In the backward pass a program owns a sample or a row of a weight, so that nothing is added by two.

Letters: B samples, E components, D values of g_cls, n rows of a head's weight.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# components and values of g_cls held by one program at a time
_BLOCK_E, _BLOCK_D = 32, 64
# values of g_cls of all samples held by a program that owns a row of a weight
_BLOCK_ELEMENTS = 8192


@triton.jit
def _value(
    p_g_cls, p_weight, p_bias, p_index, i_sample, o_e, m_e,
    LARGEST: tl.constexpr, D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Returns the values of a block of components of a sample."""
    o_row = tl.load(p_index + o_e, mask=m_e, other=0)
    b_product = tl.zeros([BLOCK_E, BLOCK_D], tl.float32)
    for i_d in range(0, D, BLOCK_D):
        o_d = i_d + tl.arange(0, BLOCK_D)
        b_g_cls = tl.load(p_g_cls + i_sample * D + o_d, mask=o_d < D, other=0.0).to(tl.float32)
        m_all = m_e[:, None] & (o_d < D)[None, :]
        b_product += tl.load(p_weight + o_row[:, None] * D + o_d[None, :], mask=m_all, other=0.0) * b_g_cls[None, :]
    b_bias = tl.load(p_bias + o_row, mask=m_e, other=0.0)
    return LARGEST * tl.sigmoid(tl.sum(b_product, axis=1) + b_bias)


@triton.jit(do_not_specialize=["E"])
def component_heads_fwd_kernel(
    p_g_cls, p_center_weight, p_center_bias, p_width_weight, p_width_bias, p_center_index, p_width_index,
    p_center, p_width,
    E,
    MAX_WIDTH: tl.constexpr, D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_sample = tl.program_id(0).to(tl.int64)
    o_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    m_e = o_e < E
    b_center = _value(
        p_g_cls, p_center_weight, p_center_bias, p_center_index, i_sample, o_e, m_e, 1.0, D, BLOCK_E, BLOCK_D
    )
    tl.store(p_center + i_sample * E + o_e, b_center, mask=m_e)
    b_width = _value(
        p_g_cls, p_width_weight, p_width_bias, p_width_index, i_sample, o_e, m_e, MAX_WIDTH, D, BLOCK_E, BLOCK_D
    )
    tl.store(p_width + i_sample * E + o_e, b_width, mask=m_e)


@triton.jit
def _slope(p_value, p_grad, o_all, m_all, LARGEST: tl.constexpr):
    """Returns gradients of the sigmoid's arguments, 0 outside the mask."""
    b_value = tl.load(p_value + o_all, mask=m_all, other=0.0)
    return tl.load(p_grad + o_all, mask=m_all, other=0.0) * b_value * (1.0 - b_value / LARGEST)


@triton.jit
def _through(
    p_weight, p_index, p_value, p_grad, i_sample, o_e, o_d, E,
    LARGEST: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Returns what a block of components adds to a part of the gradient of g_cls."""
    m_e = o_e < E
    b_slope = _slope(p_value, p_grad, i_sample * E + o_e, m_e, LARGEST)
    o_row = tl.load(p_index + o_e, mask=m_e, other=0)
    m_all = m_e[:, None] & (o_d < D)[None, :]
    b_weight = tl.load(p_weight + o_row[:, None] * D + o_d[None, :], mask=m_all, other=0.0)
    return tl.sum(b_slope[:, None] * b_weight, axis=0)


@triton.jit
def _add_row(
    p_g_cls, p_index, p_value, p_grad, p_weight_sum, p_bias_sum, i_row, num_samples, E,
    LARGEST: tl.constexpr, D: tl.constexpr,
    SPAN_E: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_ROW: tl.constexpr,
):  # fmt: skip
    """Adds to the gradients of a row of a weight and of its bias."""
    o_d = tl.arange(0, BLOCK_ROW)
    b_weight_sum = tl.load(p_weight_sum + i_row * D + o_d, mask=o_d < D, other=0.0)
    b_bias_sum = tl.load(p_bias_sum + i_row)
    for i_sample in range(0, num_samples, BLOCK_B):
        o_sample = (i_sample + tl.arange(0, BLOCK_B)).to(tl.int64)
        m_sample = o_sample < num_samples
        b_slope = tl.zeros([BLOCK_B], tl.float32)
        for i_e in range(0, SPAN_E, BLOCK_E):
            o_e = i_e + tl.arange(0, BLOCK_E)
            # components that read this row
            m_e = tl.load(p_index + o_e, mask=o_e < E, other=-1) == i_row
            o_all, m_all = o_sample[:, None] * E + o_e[None, :], m_sample[:, None] & m_e[None, :]
            b_slope += tl.sum(_slope(p_value, p_grad, o_all, m_all, LARGEST), axis=1)
        m_all = m_sample[:, None] & (o_d < D)[None, :]
        b_g_cls = tl.load(p_g_cls + o_sample[:, None] * D + o_d[None, :], mask=m_all, other=0.0).to(tl.float32)
        b_weight_sum += tl.sum(b_slope[:, None] * b_g_cls, axis=0)
        b_bias_sum += tl.sum(b_slope, axis=0)
    tl.store(p_weight_sum + i_row * D + o_d, b_weight_sum, mask=o_d < D)
    tl.store(p_bias_sum + i_row, b_bias_sum)


@triton.jit(do_not_specialize=["num_samples", "num_centers", "E"])
def component_heads_bwd_kernel(
    p_g_cls, p_center_weight, p_width_weight, p_center_index, p_width_index, p_center, p_width,
    p_grad_center, p_grad_width,
    p_grad_g_cls, p_center_weight_sum, p_center_bias_sum, p_width_weight_sum, p_width_bias_sum,
    num_samples, num_centers, E,
    MAX_WIDTH: tl.constexpr, D: tl.constexpr,
    SPAN_E: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_ROW: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0)
    i_row = i_program - num_samples
    if i_row < 0:
        i_sample = i_program.to(tl.int64)
        for i_d in range(0, D, BLOCK_D):
            o_d = i_d + tl.arange(0, BLOCK_D)
            b_grad = tl.zeros([BLOCK_D], tl.float32)
            for i_e in range(0, SPAN_E, BLOCK_E):
                o_e = i_e + tl.arange(0, BLOCK_E)
                b_grad += _through(
                    p_center_weight, p_center_index, p_center, p_grad_center, i_sample, o_e, o_d, E, 1.0, D
                )
                b_grad += _through(
                    p_width_weight, p_width_index, p_width, p_grad_width, i_sample, o_e, o_d, E, MAX_WIDTH, D
                )
            tl.store(p_grad_g_cls + i_sample * D + o_d, b_grad.to(p_grad_g_cls.dtype.element_ty), mask=o_d < D)
    elif i_row < num_centers:
        _add_row(
            p_g_cls, p_center_index, p_center, p_grad_center, p_center_weight_sum, p_center_bias_sum, i_row,
            num_samples, E, 1.0, D, SPAN_E, BLOCK_E, BLOCK_B, BLOCK_ROW,
        )  # fmt: skip
    else:
        _add_row(
            p_g_cls, p_width_index, p_width, p_grad_width, p_width_weight_sum, p_width_bias_sum, i_row - num_centers,
            num_samples, E, MAX_WIDTH, D, SPAN_E, BLOCK_E, BLOCK_B, BLOCK_ROW,
        )  # fmt: skip


def blocks(num_components: int, width: int) -> dict[str, int]:
    """Returns block sizes of the backward pass for E components and D values of g_cls.

    A loop over blocks of components ends at a constant, SPAN_E: with a run-time end, registers spill.
    """
    block_row = triton.next_power_of_2(width)
    block_b = max(min(_BLOCK_ELEMENTS // block_row, _BLOCK_E), 1)
    span = triton.cdiv(num_components, _BLOCK_E) * _BLOCK_E
    return {"SPAN_E": span, "BLOCK_E": _BLOCK_E, "BLOCK_D": _BLOCK_D, "BLOCK_B": block_b, "BLOCK_ROW": block_row}


def component_heads_fwd(
    g_cls: Tensor, parameters: list[Tensor], indices: list[Tensor], max_width: float
) -> tuple[Tensor, Tensor]:
    """Centers and widths, Eqs. (1) and (2).

    Args:
        g_cls: [B, D], fp32, fp16 or bf16.
        parameters: weight [n, D] and bias [n] of the head of centers and of that of widths, fp32, contiguous.
        indices: row of the head that each component reads, [E] int64 of centers and of widths.
        max_width: widths stay below it.
    Returns:
        center and width, [B, E] fp32.
    """
    g_cls = g_cls.contiguous()
    num_samples, width = g_cls.shape
    num_components = len(indices[0])
    center, widths = (empty(g_cls, num_samples, num_components) for _ in range(2))
    center_weight, center_bias, width_weight, width_bias = parameters
    with device_of(g_cls):
        component_heads_fwd_kernel[(num_samples, triton.cdiv(num_components, _BLOCK_E))](
            p_g_cls=g_cls, p_center_weight=center_weight, p_center_bias=center_bias, p_width_weight=width_weight,
            p_width_bias=width_bias, p_center_index=indices[0], p_width_index=indices[1], p_center=center,
            p_width=widths, MAX_WIDTH=max_width, E=num_components, D=width, BLOCK_E=_BLOCK_E, BLOCK_D=_BLOCK_D,
        )  # fmt: skip
    return center, widths


def component_heads_bwd(
    sums: list[Tensor],
    grads: list[Tensor],
    g_cls: Tensor,
    weights: list[Tensor],
    indices: list[Tensor],
    values: list[Tensor],
    max_width: float,
) -> Tensor:
    """Gradient of g_cls, with those of the parameters added to what is there.

    Args:
        sums: gradients of the parameters, in their order, fp32, contiguous, added to in place.
        grads: of centers and of widths, [B, E].
        g_cls, indices, max_width: as in the forward pass.
        weights: of centers and of widths.
        values: centers and widths, as the forward pass returned them.
    Returns:
        [B, D] in g_cls's dtype.
    """
    g_cls, grad_center, grad_width = (x.contiguous() for x in (g_cls, *grads))
    num_samples, width = g_cls.shape
    grad_g_cls = empty(g_cls, num_samples, width, dtype=g_cls.dtype)
    num_centers, num_widths = (len(weight) for weight in weights)
    center_weight_sum, center_bias_sum, width_weight_sum, width_bias_sum = sums
    with device_of(g_cls):
        component_heads_bwd_kernel[(num_samples + num_centers + num_widths,)](
            p_g_cls=g_cls, p_center_weight=weights[0], p_width_weight=weights[1], p_center_index=indices[0],
            p_width_index=indices[1], p_center=values[0], p_width=values[1], p_grad_center=grad_center,
            p_grad_width=grad_width, p_grad_g_cls=grad_g_cls, p_center_weight_sum=center_weight_sum,
            p_center_bias_sum=center_bias_sum, p_width_weight_sum=width_weight_sum, p_width_bias_sum=width_bias_sum,
            num_samples=num_samples, num_centers=num_centers, MAX_WIDTH=max_width, E=len(indices[0]), D=width,
            **blocks(len(indices[0]), width),
        )  # fmt: skip
    return grad_g_cls
