"""What the published model makes in Python loops or on the CPU: its input, padding, hidden words and masks.

"Item n" is a number of the list of facts about the published code; shapes are in the legend of `pps_fast.types`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pps_fast.types import Batch

# positions of the hidden words of every sample; the first word of a sentence is 1
Hidden = list[list[int]]
_INVERSE_SQRT_TWO_PI = 0.3989422804014327


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The sentences of a batch as the published loader collates them (item 6).

    Attributes:
        vectors: [B, L + 1, W], slot 0 a placeholder that the forward overwrites in place (item 8).
        ids: [B, L] int64, L the longest sentence of the batch.
        lengths: [B] int64.
        hide_prob: [B, L].
    """

    vectors: Tensor
    ids: Tensor
    lengths: Tensor
    hide_prob: Tensor


def collate(batch: Batch) -> Sentences:
    """Cuts the word columns to the longest sentence and makes room for the start token; `batch` stays as it is.

    The published loader does this in its workers, which know the length; here the length is one more read.
    """
    longest = int(batch.num_words.max())
    words = batch.words[:, :longest]
    return Sentences(
        vectors=torch.cat((words[:, :1], words), 1),
        ids=batch.word_ids[:, :longest],
        lengths=batch.num_words,
        hide_prob=batch.hide_prob[:, :longest],
    )


def padding_mask(lengths: Tensor, num_columns: int) -> Tensor:
    """True in the first lengths[b] columns of row b, written sample by sample; every length is read (section K).

    Args:
        lengths: [B] int64.
        num_columns: n.
    Returns:
        [B, n] bool.
    """
    mask = torch.zeros(len(lengths), num_columns, dtype=torch.bool, device=lengths.device)
    for sample in range(len(lengths)):
        mask[sample, : int(lengths[sample])] = True
    return mask


def draw_hidden(sentences: Sentences, divisor: int) -> Hidden:
    """Draws max(l // divisor, 1) words of every sentence by `np.random.choice`, on the CPU (item 29)."""
    hidden = []
    for sample in range(len(sentences.lengths)):
        length = int(sentences.lengths[sample])
        probability = sentences.hide_prob[sample, :length].cpu().numpy()
        count = max(length // divisor, 1)
        hidden.append(np.random.choice(np.arange(1, length + 1), count, replace=False, p=probability).tolist())
    return hidden


def hidden_mask(hidden: Hidden, num_slots: int, device: torch.device) -> Tensor:
    """[B, num_slots] bool over the token slots, filled on the CPU and uploaded; a word's slot is its position."""
    mask = torch.zeros(len(hidden), num_slots, dtype=torch.bool)
    for sample, positions in enumerate(hidden):
        mask[sample, positions] = True
    return mask.to(device)


def gaussian_masks(center: Tensor, width: Tensor, sigma: float, num_positions: int) -> Tensor:
    """Gaussian densities at t / (T - 1), divided by their peak on this grid (item 17).

    Args:
        center: [G] in (0, 1).
        width: [G] in (0, 1), drawn with 0.01 at least.
        sigma: width / standard deviation.
        num_positions: T.
    Returns:
        [G, T] in [0, 1]. The exponential comes before the division, so very narrow masks can be 0 / 0.
    """
    position = torch.linspace(0, 1, num_positions, dtype=center.dtype, device=center.device)
    std = width.clamp(min=0.01).unsqueeze(-1) / sigma
    distance = position - center.unsqueeze(-1)
    # the factor cancels in the division and is computed all the same
    density = _INVERSE_SQRT_TWO_PI / std * torch.exp(-(distance**2) / (2 * std**2))
    return density / density.max(-1, keepdim=True)[0]
