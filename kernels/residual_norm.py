"""End of every sub-layer, LayerNorm(x + dropout(branch)), forward and backward.

With keep 0 or 1, a hash of counters (see `pps_fast/randomness.py`), and scale = 1 / (share kept):

    z = x + keep scale branch      n = (z - mean z) rstd,  rstd = 1 / sqrt(var z + eps)      y = n weight + bias
    dn = dy weight                 dz = rstd (dn - mean dn - n mean(dn n))
    dx = dz                        dbranch = keep scale dz      dweight = sum dy n,  dbias = sum dy

Where the branch ends in a linear layer, the gradient of that layer's bias, sum dbranch, is computed on the way. The
backward pass computes keep again, so that it is never stored. Rows are summed in two steps, first within each
program's blocks of rows and then over programs in a fixed order, so that two runs agree bitwise.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.dropout import _STEP, _hashed, _kept_values, dropping
from pps_fast.kernels.launch import contiguous, device_of, empty
from pps_fast.kernels.linear_gradient import add_totals

# values held by one program at a time, forward and backward
_BLOCK_ELEMENTS, _BLOCK_ELEMENTS_BWD = 1024, 2048
# most programs of the backward pass, each of which writes its sums to its own row: as many as their registers let run
# at once on an H100 or H200, three on each of 132 processors
_MAX_PROGRAMS = 396


@triton.jit
def _kept(
    p_dropout_key, site, p_first, p_place, o_row, m_row, o_d, N, num_masks, THRESHOLD: tl.constexpr, D: tl.constexpr
):
    """Returns which values dropout keeps in rows o_row, which are numbered over all sequences, or masks."""
    # 32 bits hold the number of a row, and are divided by a run-time integer in a tenth of the instructions
    i_row = o_row.to(tl.int32)
    i_sequence = i_row // N
    i_position = i_row % N
    if p_place is not None:
        # ragged rows: N of all sentences, once per mask
        p_row = p_place + i_position
        i_sequence += tl.load(p_row, mask=m_row, other=0) * num_masks
        i_position = tl.load(p_row + N, mask=m_row, other=0)
    b_dropout_key = _hashed(tl.load(p_dropout_key + i_sequence, mask=m_row, other=0) ^ (site * _STEP))
    if p_first is not None:
        i_position += tl.load(p_first + i_sequence, mask=m_row, other=0).to(tl.int32)
    return _kept_values(b_dropout_key[:, None], i_position[:, None] * D + o_d[None, :], THRESHOLD)


@triton.jit
def _rows(i_block, num_rows, D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Returns offsets and masks of a block of rows."""
    # the interpreter's loops count in numbers of Python
    o_row = tl.cast(i_block, tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    o_d = tl.arange(0, BLOCK_D)
    m_row, m_d = o_row < num_rows, o_d < D
    return o_row, o_d, m_row, m_d, m_row[:, None] & m_d[None, :]


@triton.jit
def _load_alike(p_x, o_row, o_d, m_all, N, alike, D: tl.constexpr):
    """Loads rows o_row of sequences, of which `alike` in a row are stored once."""
    i_row = o_row
    if alike > 1:
        i_sequence = o_row.to(tl.int32) // N
        i_row = (i_sequence // alike).to(tl.int64) * N + (o_row - i_sequence * N)
    return tl.load(p_x + i_row[:, None] * D + o_d[None, :], mask=m_all, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["num_rows", "site", "N", "num_masks", "alike_x", "alike_branch"])
def residual_norm_fwd_kernel(
    p_x, p_branch, p_weight, p_bias, p_dropout_key, p_first, p_place, p_out, p_sum, p_mean, p_rstd,
    num_rows, site, N, num_masks, alike_x, alike_branch,
    SCALE: tl.constexpr,
    THRESHOLD: tl.constexpr,
    EPS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    o_row, o_d, m_row, m_d, m_all = _rows(tl.program_id(0), num_rows, D, BLOCK_R, BLOCK_D)
    o_all = o_row[:, None] * D + o_d[None, :]
    b_sum = _load_alike(p_x, o_row, o_d, m_all, N, alike_x, D)
    b_branch = _load_alike(p_branch, o_row, o_d, m_all, N, alike_branch, D)
    if p_dropout_key is not None:
        b_branch = tl.where(
            _kept(p_dropout_key, site, p_first, p_place, o_row, m_row, o_d, N, num_masks, THRESHOLD, D),
            b_branch * SCALE,
            0.0,
        )
    # normalize the sum as rounded, because the backward pass reads the rounded sum
    b_sum = (b_sum + b_branch).to(p_sum.dtype.element_ty)
    tl.store(p_sum + o_all, b_sum, mask=m_all)
    b_sum = b_sum.to(tl.float32)
    b_mean = tl.sum(b_sum, axis=1) / D
    b_centered = tl.where(m_d[None, :], b_sum - b_mean[:, None], 0.0)
    b_rstd = 1.0 / tl.sqrt_rn(tl.sum(b_centered * b_centered, axis=1) / D + EPS)
    b_weight = tl.load(p_weight + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_bias = tl.load(p_bias + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_out = b_centered * b_rstd[:, None] * b_weight[None, :] + b_bias[None, :]
    tl.store(p_out + o_all, b_out.to(p_out.dtype.element_ty), mask=m_all)
    tl.store(p_mean + o_row, b_mean, mask=m_row)
    tl.store(p_rstd + o_row, b_rstd, mask=m_row)


@triton.jit
def _load_rows(
    p_grad, p_sum, p_mean, p_rstd, i_block, num_rows, D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Returns what the backward pass reads of a block of rows; 0 beyond the last one."""
    o_row, o_d, m_row, m_d, m_all = _rows(i_block, num_rows, D, BLOCK_R, BLOCK_D)
    o_all = o_row[:, None] * D + o_d[None, :]
    b_grad = tl.load(p_grad + o_all, mask=m_all, other=0.0)
    b_sum = tl.load(p_sum + o_all, mask=m_all, other=0.0)
    return b_grad, b_sum, tl.load(p_mean + o_row, mask=m_row, other=0.0), tl.load(p_rstd + o_row, mask=m_row, other=0.0)


@triton.jit(do_not_specialize=["num_rows", "site", "N", "num_masks"])
def residual_norm_bwd_kernel(
    p_grad, p_weight, p_dropout_key, p_first, p_place, p_sum, p_mean, p_rstd,
    p_grad_x, p_grad_branch, p_part,
    num_rows, site, N, num_masks,
    SCALE: tl.constexpr,
    THRESHOLD: tl.constexpr,
    D: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_program = tl.program_id(0)
    num_programs = tl.num_programs(0)
    b_grad_weight = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    b_grad_bias = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    b_branch_bias = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    b_next_grad, b_next_sum, b_next_mean, b_next_rstd = _load_rows(
        p_grad, p_sum, p_mean, p_rstd, i_program, num_rows, D, BLOCK_R, BLOCK_D
    )
    for i_block in range(i_program, tl.cdiv(num_rows, BLOCK_R), num_programs):
        o_row, o_d, m_row, m_d, m_all = _rows(i_block, num_rows, D, BLOCK_R, BLOCK_D)
        o_all = o_row[:, None] * D + o_d[None, :]
        b_grad, b_sum = b_next_grad.to(tl.float32), b_next_sum.to(tl.float32)
        b_mean, b_rstd = b_next_mean, b_next_rstd
        # the next rows come while these are computed
        b_next_grad, b_next_sum, b_next_mean, b_next_rstd = _load_rows(
            p_grad, p_sum, p_mean, p_rstd, i_block + num_programs, num_rows, D, BLOCK_R, BLOCK_D
        )
        b_normal = tl.where(m_all, (b_sum - b_mean[:, None]) * b_rstd[:, None], 0.0)
        b_grad_weight += b_grad * b_normal
        b_grad_bias += b_grad
        b_grad *= tl.load(p_weight + o_d, mask=m_d, other=0.0).to(tl.float32)[None, :]
        b_along = tl.sum(b_grad * b_normal, axis=1) / D
        b_grad = (b_grad - (tl.sum(b_grad, axis=1) / D)[:, None] - b_normal * b_along[:, None]) * b_rstd[:, None]
        tl.store(p_grad_x + o_all, b_grad.to(p_grad_x.dtype.element_ty), mask=m_all)
        if p_dropout_key is not None:
            b_grad = tl.where(
                _kept(p_dropout_key, site, p_first, p_place, o_row, m_row, o_d, N, num_masks, THRESHOLD, D),
                b_grad * SCALE,
                0.0,
            )
        tl.store(p_grad_branch + o_all, b_grad.to(p_grad_branch.dtype.element_ty), mask=m_all)
        if SUMS > 2:
            b_branch_bias += tl.where(m_all, b_grad, 0.0)
    o_d = tl.arange(0, BLOCK_D)
    o_sums = i_program.to(tl.int64) * (SUMS * D) + o_d
    tl.store(p_part + o_sums, tl.sum(b_grad_weight, axis=0), mask=o_d < D)
    tl.store(p_part + o_sums + D, tl.sum(b_grad_bias, axis=0), mask=o_d < D)
    if SUMS > 2:
        tl.store(p_part + o_sums + 2 * D, tl.sum(b_branch_bias, axis=0), mask=o_d < D)


def blocks(width: int, is_backward: bool = False) -> dict[str, int]:
    """Returns block sizes and warps of a launch."""
    block_d = max(triton.next_power_of_2(width), 16)
    num_elements = _BLOCK_ELEMENTS_BWD if is_backward else _BLOCK_ELEMENTS
    return {"BLOCK_R": max(num_elements // block_d, 1), "BLOCK_D": block_d, "num_warps": 4}


def _dropping(dropout_key: Tensor | None, dropout: list[int], places: Tensor | None) -> dict[str, Any]:
    """Returns the arguments of `_kept`; without dropout nobody asks for positions."""
    places = contiguous(places if dropout_key is not None else None)
    is_ragged = places is not None and places.dim() == 2
    where = {"p_first": None if is_ragged else places, "p_place": places if is_ragged else None}
    return {**dropping(dropout_key, dropout), **where}


def residual_norm_fwd(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout_key: Tensor | None,
    dropout: list[int],
    places: Tensor | None,
    eps: float,
    num: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LayerNorm(x + dropout(branch)).

    Args:
        x, branch: [G, n, D], fp32, fp16 or bf16; either may be [G / N, n, D], where N sequences in a row are alike.
        weight, bias: [D], likewise.
        dropout_key: [G] int32 dropout key of each sequence, or None for no dropout.
        dropout: index of the dropout site in the model, and how many of 65,536 hash levels are dropped.
        places: [G] integers, position of each sequence's first row; or [2, n] int32, sample and position of each of n
            ragged rows, of which x then has G masks and dropout_key [B * G] those of all samples; or None for 0.
        eps: added to the variance.
        num: G.
    Returns:
        the result and the sum before normalization, [G, n, D] in x's dtype; mean and 1 / std of the sum, [G, n] fp32.
    """
    x, branch, weight, bias = (tensor.contiguous() for tensor in (x, branch, weight, bias))
    _, length, width = x.shape
    out, summed = (empty(x, num, length, width, dtype=x.dtype) for _ in range(2))
    mean, rstd = (empty(x, num, length) for _ in range(2))
    tile = blocks(width)
    inputs = {"p_x": x, "p_branch": branch, "p_weight": weight, "p_bias": bias}
    results = {"p_out": out, "p_sum": summed, "p_mean": mean, "p_rstd": rstd}
    sizes = {"num_rows": num * length, "N": length, "num_masks": num, "D": width}
    sizes |= {"alike_x": num // x.shape[0], "alike_branch": num // branch.shape[0]}
    with device_of(x):
        residual_norm_fwd_kernel[(triton.cdiv(num * length, tile["BLOCK_R"]),)](
            **inputs, **results, **sizes, EPS=eps, **_dropping(dropout_key, dropout, places), **tile
        )
    return out, summed, mean, rstd


def residual_norm_bwd(
    grad: Tensor,
    weight: Tensor,
    dropout_key: Tensor | None,
    dropout: list[int],
    places: Tensor | None,
    results: list[Tensor],
    branch_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of LayerNorm(x + dropout(branch)).

    Args:
        grad: [G, n, D] of the result.
        weight, dropout_key, dropout, places: as in the forward pass.
        results: sum, mean and 1 / std, as the forward pass returned them.
        branch_dtype: dtype of the branch.
    Returns:
        gradients of x and branch [G, n, D] in their dtypes, of weight and bias [D] fp32.
    """
    sums = [torch.zeros(weight.shape, dtype=torch.float32, device=grad.device) for _ in range(2)]
    grads = residual_norm_bwd_into(sums, grad, weight, dropout_key, dropout, places, results, branch_dtype)
    return *grads, sums[0], sums[1]


def residual_norm_bwd_into(
    sums: list[Tensor],
    grad: Tensor,
    weight: Tensor,
    dropout_key: Tensor | None,
    dropout: list[int],
    places: Tensor | None,
    results: list[Tensor],
    branch_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Gradients of LayerNorm(x + dropout(branch)), with those of [D] added to what is there.

    Args:
        sums: gradients of weight, of bias and, if there are three, of a bias that was added to the branch: [D] fp32,
            contiguous, added to in place.
        grad, weight, dropout_key, dropout, places, results, branch_dtype: as for `residual_norm_bwd`.
    Returns:
        gradients of x and branch [G, n, D] in their dtypes.
    """
    summed, mean, rstd = results
    grad, weight = grad.contiguous(), weight.contiguous()
    num, length, width = summed.shape
    tile = blocks(width, is_backward=True)
    num_programs = min(triton.cdiv(num * length, tile["BLOCK_R"]), _MAX_PROGRAMS)
    grad_x = empty(grad, *grad.shape, dtype=summed.dtype)
    grad_branch = empty(grad, *grad.shape, dtype=branch_dtype)
    part = empty(grad, num_programs, len(sums), width)
    inputs = {"p_grad": grad, "p_weight": weight, "p_sum": summed, "p_mean": mean, "p_rstd": rstd}
    gradients = {"p_grad_x": grad_x, "p_grad_branch": grad_branch, "p_part": part}
    sizes = {"num_rows": num * length, "N": length, "num_masks": num, "D": width, "SUMS": len(sums)}
    with device_of(grad):
        residual_norm_bwd_kernel[(num_programs,)](
            **inputs, **gradients, **sizes, **_dropping(dropout_key, dropout, places), **tile
        )
        add_totals(part, sums)
    return grad_x, grad_branch
