"""Rows of sentences one behind another, without padding.

Fused stacks and the loss of the words compute no more rows than the sentences have together, where the host knows how
many these are (`Batch.total_words`): shapes then depend on that number, in which few batches differ.

Letters: R ragged rows of all samples, n rows of the longest sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Where ragged rows [N, R, D] lie: under each of N masks, all rows of the first sample, then of the second, ...

    Attributes:
        start: [B + 1] int32, first row of each sample, and R.
        place: [2, R] int32, sample and position in its sentence of each row.
        index: [R] int64, each row's number among the padded rows [B * n].
        longest: n, no sample has more rows.
    """

    start: Tensor
    place: Tensor
    index: Tensor
    longest: int

    def take(self, x: Tensor) -> Tensor:
        """Padded rows [B, n, D] -> ragged rows [1, R, D].

        Raises:
            ValueError: where rows are padded to another length than these were placed for.
        """
        if x.shape[1] != self.longest:
            raise ValueError(f"ragged rows of samples padded to {self.longest}: taken of {x.shape[1]}")
        return x.flatten(0, 1).index_select(0, self.index).unsqueeze(0)

    def take_row(self, x: Tensor, row: Tensor) -> Tensor:
        """One row of each sample and mask of ragged rows [N, R, D], at `row` [B * N]: [B * N, 1, D]."""
        return x.flatten(0, 1).index_select(0, self.index_of(row)).unsqueeze(1)

    def index_of(self, row: Tensor) -> Tensor:
        """Numbers among rows [N, R] flattened, [B * N] int64, of one row of each sample and mask, `row` [B * N]."""
        first = self.start[:-1].unsqueeze(1)
        num_rows, num_masks = len(self.index), len(row) // len(first)
        masks = torch.arange(0, num_masks * num_rows, num_rows, device=row.device)
        return (first + masks).flatten() + row
