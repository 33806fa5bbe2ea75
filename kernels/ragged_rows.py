"""Where the rows of sentences lie that are stored one behind another, without padding.

Sentence b of w[b] words takes w[b] + e rows. The rows are R in all, a number that the host knows before it knows the
words; what is left over is dealt out to the first sentences that have room, up to C + e rows each:

    more[b] = clip(R - e B - sum w - sum_{a < b} (C - w[a]), 0, C - w[b])
    start[b] = sum_{a < b} (w[a] + e + more[a])
    sample[r] = the b with start[b] <= r < start[b + 1],  position[r] = r - start[sample[r]]

Letters: B sentences, C most words of one, R rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# rows placed by one program, which looks at all sentences
_BLOCK_R = 16


@triton.jit(do_not_specialize=["B", "C", "R", "extra"])
def ragged_rows_kernel(
    p_num_words, p_start, p_place, p_index, B, C, R, extra, BLOCK_B: tl.constexpr, BLOCK_R: tl.constexpr
):
    o_b = tl.arange(0, BLOCK_B)
    m_b = o_b < B
    b_words = tl.load(p_num_words + o_b, mask=m_b, other=0).to(tl.int32)
    b_room = tl.where(m_b, C - b_words, 0)
    b_left = R - extra * B - tl.sum(b_words, axis=0) - (tl.cumsum(b_room, axis=0) - b_room)
    b_rows = b_words + tl.minimum(tl.maximum(b_left, 0), b_room) + tl.where(m_b, extra, 0)
    # never beyond the last row, whatever the host believed
    b_end = tl.minimum(tl.cumsum(b_rows, axis=0), R)
    o_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    m_r = o_r < R
    m_before = (b_end[None, :] <= o_r[:, None]) & m_b[None, :]
    b_sample = tl.minimum(tl.sum(m_before.to(tl.int32), axis=1), B - 1)
    b_position = o_r - tl.max(tl.where(m_before, b_end[None, :], 0), axis=1)
    tl.store(p_place + o_r, b_sample, mask=m_r)
    tl.store(p_place + R + o_r, b_position, mask=m_r)
    tl.store(p_index + o_r, b_sample.to(tl.int64) * (C + extra) + b_position, mask=m_r)
    if tl.program_id(0) == 0:
        tl.store(p_start + 1 + o_b, b_end, mask=m_b)
        tl.store(p_start, 0)


def ragged_rows(num_words: Tensor, num_columns: int, extra: int, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places the rows of sentences one behind another.

    Args:
        num_words: [B] int64, each at most C.
        num_columns: C.
        extra: e, rows of a sentence besides those of its words.
        num_rows: R, from num_words.sum() + e B to (C + e) B; of fewer, the last sentences lack rows.
    Returns:
        start [B + 1] int32, first row of each sentence, and R; place [2, R] int32, sample and position of each row;
        index [R] int64, row of each where every sentence has C + e.
    """
    num_samples = len(num_words)
    start, place, index = (
        empty(num_words, *shape, dtype=dtype)
        for shape, dtype in (
            ((num_samples + 1,), torch.int32),
            ((2, num_rows), torch.int32),
            ((num_rows,), torch.int64),
        )
    )
    with device_of(num_words):
        ragged_rows_kernel[(triton.cdiv(num_rows, _BLOCK_R),)](
            p_num_words=num_words.contiguous(), p_start=start, p_place=place, p_index=index,
            B=num_samples, C=num_columns, R=num_rows, extra=extra,
            BLOCK_B=triton.next_power_of_2(num_samples), BLOCK_R=_BLOCK_R,
        )  # fmt: skip
    return start, place, index
