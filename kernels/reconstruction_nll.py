"""Label-smoothed cross-entropy C(.) of the reconstructed sentence, the mean over its targets, forward and backward.

With z the logits of one word over V classes, y its target, m = max z, s = sum_v exp(z_v - m), w = dnll / (number of
targets):

    loss = (m - z_y) + log s - e / V sum_v (z_v - z_y)
    dz_v = w (exp(z_v - m - log s) - (1 - e) [v = y] - e / V), 0 for a word that is not a target

Only differences of logits are used, and m and log s are stored separately: their sum would lose the digits of log s
where logits are large. A program loops over the classes of one word, or of a few words at once, with an online maximum;
words that are not targets are not read. A second kernel averages a sentence's words, so that nothing is added
atomically and two runs agree bitwise.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# logits held by one program: 8 in each of 128 threads, which is one load in bf16
_BLOCK_ELEMENTS = 1024
# classes that one warp holds at 8 per thread
_NARROWEST_BLOCK = 256
# most words of a short sentence
_SHORT = 32
# logits of the widest load, 16 bytes
_WIDEST_LOAD = 8


@triton.jit
def _words(p_targets, p_is_target, p_start, L, BLOCK_L: tl.constexpr):
    """Returns sample and mask, and for a block of words: positions, targets, classes, rows, and which rows exist.

    A row is counted from the first of the sample's entry, which is its own, or of ragged rows that of all samples.
    """
    i_n, i_b = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    o_l = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    m_target = tl.load(p_is_target + i_b * L + o_l, mask=o_l < L, other=0) != 0
    b_class = tl.load(p_targets + i_b * L + o_l, mask=m_target, other=0)
    o_row, m_l = o_l.to(tl.int64), o_l < L
    if p_start is not None:
        i_first = tl.load(p_start + i_b)
        o_row += i_first
        m_l = m_l & (o_l < tl.load(p_start + i_b + 1) - i_first)
    return i_b, i_n, o_l, m_target, b_class, o_row, m_l


@triton.jit
def _offsets(i_b, i_n, o_row, s_b, s_n, s_l, ALIGNMENT: tl.constexpr):
    """Returns offsets of the logits of words; the compiler is told that they are multiples of ALIGNMENT."""
    return tl.multiple_of(i_b * s_b + i_n * s_n + o_row * s_l, ALIGNMENT)


@triton.jit
def _num_targets(p_is_target, i_b, L, BLOCK_ALL: tl.constexpr):
    """Returns offsets, which words of a sentence are targets, and how many."""
    o_all = tl.arange(0, BLOCK_ALL)
    m_all = tl.load(p_is_target + i_b * L + o_all, mask=o_all < L, other=0) != 0
    return o_all, m_all, tl.sum(m_all.to(tl.int32), axis=0)


@triton.jit(do_not_specialize=["L", "s_b", "s_n", "s_l"])
def reconstruction_nll_fwd_word_kernel(
    p_logits, p_targets, p_is_target, p_start, p_word, p_peak, p_log_sum,
    L, s_b, s_n, s_l,
    SMOOTHING: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    V: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    i_b, i_n, o_l, m_target, b_class, o_row, m_l = _words(p_targets, p_is_target, p_start, L, BLOCK_L)
    b_loss = tl.zeros([BLOCK_L], tl.float32)
    b_peak = tl.zeros([BLOCK_L], tl.float32)
    b_log_sum = tl.zeros([BLOCK_L], tl.float32)
    if tl.max(m_target.to(tl.int32), axis=0) > 0:
        p_rows = p_logits + _offsets(i_b, i_n, o_row, s_b, s_n, s_l, ALIGNMENT)
        # a class or a row that does not exist is not read and makes the loss NaN
        m_class = m_target & m_l & (b_class >= 0) & (b_class < V)
        b_picked = tl.load(p_rows + b_class, mask=m_class, other=0.0).to(tl.float32)
        b_picked = tl.where(m_class | ~m_target, b_picked, float("nan"))
        b_peak = tl.full([BLOCK_L], float("-inf"), tl.float32)
        # summed over classes after the loop, so that only the maximum is exchanged between threads inside it
        b_sum = tl.zeros([BLOCK_L, BLOCK_V], tl.float32)
        b_total = tl.zeros([BLOCK_L, BLOCK_V], tl.float32)
        for i_v in range(0, V, BLOCK_V):
            o_v = i_v + tl.arange(0, BLOCK_V)
            m_v = (o_v < V)[None, :]
            b_z = tl.load(p_rows[:, None] + o_v[None, :], mask=(m_target & m_l)[:, None] & m_v, other=0.0).to(
                tl.float32
            )
            b_total += tl.where(m_v, b_z - b_picked[:, None], 0.0)
            b_z = tl.where(m_v, b_z, float("-inf"))
            b_new_peak = tl.maximum(b_peak, tl.max(b_z, axis=1))
            b_sum = b_sum * tl.exp(b_peak - b_new_peak)[:, None] + tl.exp(b_z - b_new_peak[:, None])
            b_peak = b_new_peak
        b_log_sum = tl.log(tl.sum(b_sum, axis=1))
        b_loss = (b_peak - b_picked) + b_log_sum - tl.sum(b_total, axis=1) * (SMOOTHING / V)
    o_word = (i_b * tl.num_programs(1) + i_n) * L + o_l
    tl.store(p_word + o_word, tl.where(m_target, b_loss, 0.0), mask=o_l < L)
    tl.store(p_peak + o_word, tl.where(m_target, b_peak, 0.0), mask=o_l < L)
    tl.store(p_log_sum + o_word, tl.where(m_target, b_log_sum, 0.0), mask=o_l < L)


@triton.jit(do_not_specialize=["L"])
def reconstruction_nll_fwd_mean_kernel(p_word, p_is_target, p_nll, L, BLOCK_ALL: tl.constexpr):
    i_n, i_b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    i_pair = i_b * tl.num_programs(0) + i_n
    o_all, m_all, num = _num_targets(p_is_target, i_b, L, BLOCK_ALL)
    b_word = tl.load(p_word + i_pair * L + o_all, mask=m_all, other=0.0)
    # as in the equation, the mean of a sentence without targets is NaN
    b_mean = tl.where(num > 0, tl.sum(b_word, axis=0) / tl.maximum(num, 1), float("nan"))
    tl.store(p_nll + i_pair, b_mean)


@triton.jit(do_not_specialize=["L", "s_b", "s_n", "s_l", "s_db", "s_dn", "s_dl"])
def reconstruction_nll_bwd_kernel(
    p_logits, p_targets, p_is_target, p_start, p_grad, p_peak, p_log_sum, p_grad_logits,
    L, s_b, s_n, s_l, s_db, s_dn, s_dl,
    SMOOTHING: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    ROW_ALIGNMENT: tl.constexpr,
    V: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_ALL: tl.constexpr,
):  # fmt: skip
    i_b, i_n, o_l, m_target, b_class, o_row, m_l = _words(p_targets, p_is_target, p_start, L, BLOCK_L)
    i_pair = i_b * tl.num_programs(1) + i_n
    o_word = i_pair * L + o_l
    _, _, num = _num_targets(p_is_target, i_b, L, BLOCK_ALL)
    b_weight = tl.where(m_target, tl.load(p_grad + i_pair) / tl.maximum(num, 1), 0.0)
    b_peak = tl.load(p_peak + o_word, mask=m_target, other=0.0)
    b_log_sum = tl.load(p_log_sum + o_word, mask=m_target, other=0.0)
    p_rows = p_logits + _offsets(i_b, i_n, o_row, s_b, s_n, s_l, ALIGNMENT)
    p_grad_rows = p_grad_logits + _offsets(i_b, i_n, o_row, s_db, s_dn, s_dl, ROW_ALIGNMENT)
    for i_v in range(0, V, BLOCK_V):
        o_v = i_v + tl.arange(0, BLOCK_V)
        m_v = (o_v < V)[None, :]
        m_read = (m_target & m_l)[:, None] & m_v
        b_z = tl.load(p_rows[:, None] + o_v[None, :], mask=m_read, other=float("-inf")).to(tl.float32)
        b_share = tl.exp(b_z - b_peak[:, None] - b_log_sum[:, None])
        b_share -= tl.where(o_v[None, :] == b_class[:, None], 1.0 - SMOOTHING, 0.0) + SMOOTHING / V
        b_grad = (b_share * b_weight[:, None]).to(p_grad_logits.dtype.element_ty)
        tl.store(p_grad_rows[:, None] + o_v[None, :], b_grad, mask=m_l[:, None] & m_v)


def blocks(num_columns: int, num_classes: int) -> dict[str, int]:
    """Returns words and classes of a block: the fewest lanes beyond the last class, then the most classes."""
    block_v = min(triton.next_power_of_2(num_classes), _BLOCK_ELEMENTS)
    widths = [block_v >> shift for shift in range(3) if shift == 0 or block_v >> shift >= _NARROWEST_BLOCK]
    block_v = min(widths, key=lambda width: triton.cdiv(num_classes, width) * width)
    return {"BLOCK_L": min(_BLOCK_ELEMENTS // block_v, triton.next_power_of_2(num_columns)), "BLOCK_V": block_v}


def block_all(num_columns: int) -> int:
    """Returns the width of a tile that holds all words of a sentence; one for all short sentences."""
    return max(triton.next_power_of_2(num_columns), _SHORT)


def alignment(x: Tensor) -> int:
    """Returns the largest power of 2, up to the widest load, that divides the offset of every row of x."""
    divisor = _WIDEST_LOAD
    for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True):
        if size > 1:
            divisor = gcd(divisor, stride)
    return divisor


def _strides(x: Tensor) -> tuple[int, ...]:
    """Returns the strides between samples, masks and words of logits, [B, N, L, V] or ragged [N, R, V]."""
    return (0,) * (4 - x.dim()) + x.stride()[:-1]


def like_rows(logits: Tensor) -> Tensor:
    """Allocates a gradient of logits whose rows are as far apart as theirs, contiguous where these are not even."""
    *shape, num_classes = logits.shape
    *strides, s_v = logits.stride()
    s_row = strides[-1]
    is_even = s_v == 1 and s_row >= num_classes and strides == [s_row * prod(shape[i + 1 :]) for i in range(len(shape))]
    return empty(logits, *shape, s_row if is_even else num_classes, dtype=logits.dtype)[..., :num_classes]


def _inputs(
    logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float, start: Tensor | None
) -> dict[str, Any]:
    """Returns the arguments of the kernels that read logits."""
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    s_b, s_n, s_l = _strides(logits)
    num_columns, num_classes = targets.shape[1], logits.shape[-1]
    return {
        "p_logits": logits,
        "p_targets": targets.contiguous(),
        "p_is_target": is_target.contiguous(),
        "p_start": start,
        "L": num_columns,
        "s_b": s_b,
        "s_n": s_n,
        "s_l": s_l,
        "SMOOTHING": smoothing,
        "ALIGNMENT": alignment(logits),
        "V": num_classes,
        **blocks(num_columns, num_classes),
    }


def reconstruction_nll_fwd(
    logits: Tensor, targets: Tensor, is_target: Tensor, smoothing: float, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """C(.) of every sentence under every mask.

    Args:
        logits: [B, N, L, V] fp32, fp16 or bf16; any strides.
        targets: [B, L] int64 classes; a target outside 0 ... V - 1 makes its sentence's result NaN.
        is_target: [B, L] bool; a sentence without targets has result NaN, as in the equation.
        smoothing: e in [0, 1).
        start: [B + 1] int32 of `Ragged` rows, where logits are [N, R, V]; a target without a row makes its sentence's
            result NaN. Or None.
    Returns:
        nll [B, N]; and for the backward pass the largest logit m and log sum_v exp(z_v - m) of each word, [B, N, L], 0
        for words that are not targets; all fp32.
    """
    (num_samples, num_columns), num_masks = targets.shape, logits.shape[-3]
    inputs = _inputs(logits, targets, is_target, smoothing, start)
    word, peak, log_sum = (empty(logits, num_samples, num_masks, num_columns) for _ in range(3))
    nll = empty(logits, num_samples, num_masks)
    grid = (triton.cdiv(num_columns, inputs["BLOCK_L"]), num_masks, num_samples)
    with device_of(logits):
        reconstruction_nll_fwd_word_kernel[grid](**inputs, p_word=word, p_peak=peak, p_log_sum=log_sum)
        reconstruction_nll_fwd_mean_kernel[(num_masks, num_samples)](
            p_word=word,
            p_is_target=inputs["p_is_target"],
            p_nll=nll,
            L=num_columns,
            BLOCK_ALL=block_all(num_columns),
            num_warps=1,
        )
    return nll, peak, log_sum


def reconstruction_nll_bwd(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    is_target: Tensor,
    smoothing: float,
    peak: Tensor,
    log_sum: Tensor,
    start: Tensor | None = None,
) -> Tensor:
    """Gradient of the logits.

    Args:
        grad: [B, N] fp32 gradient of nll.
        logits, targets, is_target, smoothing, start: as in the forward pass.
        peak, log_sum: second and third result of the forward pass.
    Returns:
        the gradient in the logits' shape and dtype, with rows as far apart as theirs.
    """
    (num_samples, num_columns), num_masks = targets.shape, logits.shape[-3]
    inputs = _inputs(logits, targets, is_target, smoothing, start)
    grad_logits = like_rows(logits)
    s_db, s_dn, s_dl = _strides(grad_logits)
    grid = (triton.cdiv(num_columns, inputs["BLOCK_L"]), num_masks, num_samples)
    with device_of(logits):
        reconstruction_nll_bwd_kernel[grid](
            **inputs,
            p_grad=grad.contiguous(),
            p_peak=peak,
            p_log_sum=log_sum,
            p_grad_logits=grad_logits,
            s_db=s_db,
            s_dn=s_dn,
            s_dl=s_dl,
            ROW_ALIGNMENT=alignment(grad_logits),
            BLOCK_ALL=block_all(num_columns),
        )
    return grad_logits
