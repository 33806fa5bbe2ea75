"""Ragged rows are the rows of the padded layout that exist, in its order."""

from __future__ import annotations

import pytest
import torch

from pps_fast.ragged import Ragged

# sentences of 2 and 3 rows, padded to 4
PLACE = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 1, 2]], dtype=torch.int32)
START = torch.tensor([0, 2, 5], dtype=torch.int32)
RAGGED = Ragged(start=START, place=PLACE, index=torch.tensor([0, 1, 4, 5, 6]), longest=4)


def test_rows_are_taken_in_the_order_of_the_samples() -> None:
    x = torch.arange(8.0).view(2, 4, 1).expand(2, 4, 3)
    assert RAGGED.take(x)[0, :, 0].tolist() == [0, 1, 4, 5, 6]


def test_rows_of_another_padding_are_refused() -> None:
    with pytest.raises(ValueError, match="ragged rows of samples padded to 4: taken of 3"):
        RAGGED.take(torch.zeros(2, 3, 1))


def test_one_row_of_each_sample_and_mask_is_found() -> None:
    # row 1 of the first sample and row 2 of the second, under three masks
    index = RAGGED.index_of(torch.tensor([1, 1, 1, 2, 2, 2]))
    rows = torch.arange(15).view(3, 5)  # [N, R]
    assert index.tolist() == [*rows[:, 1].tolist(), *rows[:, 4].tolist()]
    assert index.dtype == torch.int64
    x = rows.unsqueeze(-1).expand(3, 5, 2)
    assert torch.equal(RAGGED.take_row(x, torch.tensor([1, 1, 1, 2, 2, 2]))[:, 0, 0], index)
