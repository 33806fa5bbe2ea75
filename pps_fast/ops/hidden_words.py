"""Which words are hidden from the reconstructor.

Paper: Section 4, "we randomly hide a third (1/3) of the words".
"""

from __future__ import annotations

import torch
from torch import Tensor

from pps_fast.ops.registration import launcher_of, load_kernel, register, runs_kernels

kernel = load_kernel("hidden_words")

# a program of the kernel compares all pairs of a sentence's words
_MAX_WORDS: int = 0 if kernel is None else kernel.MAX_WORDS


def _fake(log_prob: Tensor, noise: Tensor, num_words: Tensor, divisor: int) -> Tensor:
    return log_prob.new_empty(log_prob.shape, dtype=torch.bool)


register(launcher_of(kernel, "hidden_words"), _fake)


def hidden_words(hide_prob: Tensor, noise: Tensor, num_words: Tensor, divisor: int, backend: str = "torch") -> Tensor:
    """Draws max(num_words // divisor, 1) words without replacement with probability hide_prob.

    The words with the largest log(hide_prob) + Gumbel noise are exactly such a draw.

    Args:
        hide_prob: [B, L], 0 after the last word.
        noise: [B, L] Gumbel noise.
        num_words: [B] int64.
        divisor: one word in this many is hidden.
        backend: which implementation computes it; both draw the same words.
    Returns:
        [B, L] bool.
    """
    log_prob, length = hide_prob.log(), noise.shape[1]
    if log_prob.dtype == noise.dtype == torch.float32 and length <= _MAX_WORDS and runs_kernels(noise, backend):
        return torch.ops.pps_fast.hidden_words(log_prob, noise, num_words, divisor)
    # the rank of a word among the scores of its sentence
    rank = (log_prob + noise).argsort(dim=-1, descending=True, stable=True).argsort(-1)
    count = (num_words // divisor).clamp(min=1)
    is_word = torch.arange(length, device=noise.device) < num_words.unsqueeze(1)
    return (rank < count.unsqueeze(1)) & is_word
