"""Which words of a sentence are hidden: those of the largest scores, by pairwise comparison.

    rank[i] = number of j with s[j] > s[i], or s[j] = s[i] and j < i        s = log(hide_prob) + noise
    hidden[i] = rank[i] < max(num_words // divisor, 1) and i < num_words

The order is that of a stable sort. The logarithm is torch's, so that every decision is.

Letters: B sentences, L words.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pps_fast.kernels.launch import device_of, empty

# most words of a sentence; one size, so that sentences of any length need one compilation
MAX_WORDS = 64


@triton.jit(do_not_specialize=["L", "divisor"])
def hidden_words_kernel(p_log_prob, p_noise, p_num_words, p_out, L, divisor, BLOCK_L: tl.constexpr):
    i_sentence = tl.program_id(0).to(tl.int64)
    p_log_prob += i_sentence * L
    p_noise += i_sentence * L
    o_row, o_col = tl.arange(0, BLOCK_L)[:, None], tl.arange(0, BLOCK_L)[None, :]
    b_row = tl.load(p_log_prob + o_row, mask=o_row < L, other=0.0) + tl.load(p_noise + o_row, mask=o_row < L, other=0.0)
    b_col = tl.load(p_log_prob + o_col, mask=o_col < L, other=0.0) + tl.load(p_noise + o_col, mask=o_col < L, other=0.0)
    m_before = (b_col > b_row) | ((b_col == b_row) & (o_col < o_row))
    b_rank = tl.sum((m_before & (o_col < L)).to(tl.int32), axis=1)
    b_num_words = tl.load(p_num_words + i_sentence).to(tl.int32)
    o_word = tl.arange(0, BLOCK_L)
    m_hidden = (b_rank < tl.maximum(b_num_words // divisor, 1)) & (o_word < b_num_words)
    tl.store(p_out + i_sentence * L + o_word, m_hidden, mask=o_word < L)


def hidden_words(log_prob: Tensor, noise: Tensor, num_words: Tensor, divisor: int) -> Tensor:
    """Marks the words of the largest scores.

    Args:
        log_prob: [B, L] log of the probabilities, fp32; -inf after the last word; L at most MAX_WORDS.
        noise: [B, L] fp32.
        num_words: [B] int64.
        divisor: one word in this many is hidden.
    Returns:
        [B, L] bool.
    """
    num, length = log_prob.shape
    out = empty(log_prob, num, length, dtype=torch.bool)
    with device_of(out):
        hidden_words_kernel[(num,)](
            p_log_prob=log_prob.contiguous(), p_noise=noise.contiguous(), p_num_words=num_words.contiguous(), p_out=out,
            L=length, divisor=divisor, BLOCK_L=MAX_WORDS,
        )  # fmt: skip
    return out
