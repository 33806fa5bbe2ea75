"""Which words are hidden from the reconstructor, and which columns of what it rebuilds are targets.

Paper: Section 4, "we randomly hide a third (1/3) of the words".
"""

from __future__ import annotations

import torch
from torch import Tensor


def hidden_words(hide_prob: Tensor, noise: Tensor, num_words: Tensor, divisor: int) -> Tensor:
    """Draws max(num_words // divisor, 1) words without replacement with probability hide_prob.

    The words with the largest log(hide_prob) + Gumbel noise are exactly such a draw.

    Args:
        hide_prob: [B, L], 0 after the last word.
        noise: [B, L] Gumbel noise.
        num_words: [B] int64.
        divisor: one word in this many is hidden.
    Returns:
        [B, L] bool.
    """
    score = hide_prob.log() + noise
    # the rank of a word among the scores of its sentence
    rank = score.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    count = (num_words // divisor).clamp(min=1)
    is_word = torch.arange(noise.shape[1], device=noise.device) < num_words.unsqueeze(1)
    return (rank < count.unsqueeze(1)) & is_word


def _exact(num_words: Tensor) -> Tensor:
    """The words of the sentence."""
    return num_words


def _plus_one(num_words: Tensor) -> Tensor:
    """The published off-by-one: every sentence but the longest of its batch must also predict class 0 at its end."""
    return torch.minimum(num_words + 1, num_words.max())


def _end_of_sentence(num_words: Tensor) -> Tensor:
    """Every sentence must predict class 0 at its end."""
    return num_words + 1


# by the names of `config.TargetLength`
TARGET_LENGTHS = {"exact": _exact, "plus_one": _plus_one, "end_of_sentence": _end_of_sentence}


def target_columns(num_words: Tensor, num_columns: int, target_length: str) -> Tensor:
    """Returns [B, num_columns] bool, True where a word (or the end) must be predicted."""
    count = TARGET_LENGTHS[target_length](num_words)
    return torch.arange(num_columns, device=num_words.device) < count.unsqueeze(1)
