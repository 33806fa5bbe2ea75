"""Which columns of the reconstructed sentence are targets, by the names of `config.TargetLength`."""

from __future__ import annotations

import torch
from torch import Tensor


def _exact(num_words: Tensor) -> Tensor:
    """The words of the sentence."""
    return num_words


def _plus_one(num_words: Tensor) -> Tensor:
    """The published off-by-one: every sentence but the longest of its batch must also predict class 0 at its end."""
    return torch.minimum(num_words + 1, num_words.max())


def _end_of_sentence(num_words: Tensor) -> Tensor:
    """Every sentence must predict class 0 at its end."""
    return num_words + 1


TARGET_LENGTHS = {"exact": _exact, "plus_one": _plus_one, "end_of_sentence": _end_of_sentence}


def target_columns(num_words: Tensor, num_columns: int, target_length: str) -> Tensor:
    """Returns [B, num_columns] bool, True where a word (or the end) must be predicted."""
    count = TARGET_LENGTHS[target_length](num_words)
    return torch.arange(num_columns, device=num_words.device) < count.unsqueeze(1)
