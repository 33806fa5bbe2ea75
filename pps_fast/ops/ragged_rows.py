"""Where rows of sentences lie one behind another, without padding; no equation of the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from pps_fast.ops.registration import launcher_of, load_kernel, register
from pps_fast.ragged import Ragged

kernel = load_kernel("ragged_rows")

# sentences that one program looks at
_MAX_SAMPLES = 1024


def _fake(num_words: Tensor, num_columns: int, extra: int, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    start = num_words.new_empty(len(num_words) + 1, dtype=torch.int32)
    place = num_words.new_empty((2, num_rows), dtype=torch.int32)
    return start, place, num_words.new_empty(num_rows, dtype=torch.int64)


register(launcher_of(kernel, "ragged_rows"), _fake)


def ragged_rows(num_words: Tensor, num_columns: int, extra: int, total_words: int) -> Ragged | None:
    """Places the rows of sentences one behind another; None for more samples than a program looks at.

    Args:
        num_words: [B] int64, each at most `num_columns`.
        num_columns: word columns of the batch.
        extra: rows of each sentence besides those of its words.
        total_words: at least num_words.sum(); what is left over is dealt out as further rows.
    Raises:
        ValueError: for more words than there are columns.
    """
    num_samples = len(num_words)
    if total_words > num_samples * num_columns:
        raise ValueError(
            f"total_words = {total_words}: {num_samples} sentences of {num_columns} columns have at most "
            f"{num_samples * num_columns}"
        )
    if num_samples > _MAX_SAMPLES:
        return None
    num_rows = total_words + extra * num_samples
    start, place, index = torch.ops.pps_fast.ragged_rows(num_words, num_columns, extra, num_rows)
    return Ragged(start=start, place=place, index=index, longest=num_columns + extra)
