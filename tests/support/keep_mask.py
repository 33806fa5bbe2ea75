"""Which values dropout keeps, as a mask: the model never makes one."""

from __future__ import annotations

import torch
from torch import Tensor

from pps_fast.randomness import _decide, _pairs_of


def keep_mask(dropout_key: Tensor, shape: tuple[int, int], rate: float, first_row: Tensor | int = 0) -> Tensor:
    """Decides which values dropout keeps.

    Args:
        dropout_key: [G] int32, one for each sequence.
        shape: n and D of the sequences' values [G, n, D]; D even where `first_row` is a tensor.
        rate: share that is dropped, 0 to below 1.
        first_row: position of the first of the n rows in its sequence, one for all or [G] int64.
    Returns:
        [G, n, D] bool, False where a value is dropped.
    """
    num_rows, width = shape
    pairs = _pairs_of(shape, first_row, dropout_key.device)
    kept = torch.empty(len(dropout_key), 2 * pairs.shape[-1], dtype=torch.bool, device=dropout_key.device)
    _decide(dropout_key, pairs, rate, out=kept)
    begin = first_row * width % 2 if isinstance(first_row, int) else 0
    return kept[:, begin : begin + num_rows * width].unflatten(1, shape)
