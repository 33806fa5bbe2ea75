"""Rows are repeated and taken as loops would."""

from __future__ import annotations

import torch

from pps_fast.encoder.rows import repeat, take_row


def test_each_sample_is_repeated_next_to_itself() -> None:
    x = torch.arange(6).view(2, 3)
    assert repeat(x, 2).tolist() == [x[0].tolist()] * 2 + [x[1].tolist()] * 2


def test_one_row_of_each_sequence_is_taken() -> None:
    x = torch.arange(12).view(2, 3, 2)
    assert take_row(x, torch.tensor([2, 0])).tolist() == [[x[0, 2].tolist()], [x[1, 0].tolist()]]
