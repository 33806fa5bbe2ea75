"""Rows are numbered, repeated and taken as loops would."""

from __future__ import annotations

import pytest
import torch

from pps_fast.encoder.rows import Numbers, keep_rows, repeat, take_row


def test_each_sample_is_repeated_next_to_itself() -> None:
    x = torch.arange(6).view(2, 3)
    assert repeat(x, 2).tolist() == [x[0].tolist()] * 2 + [x[1].tolist()] * 2


def test_one_row_of_each_sequence_is_taken() -> None:
    x = torch.arange(12).view(2, 3, 2)
    assert take_row(x, torch.tensor([2, 0])).tolist() == [[x[0, 2].tolist()], [x[1, 0].tolist()]]


def test_numbers_count_beyond_those_that_are_kept() -> None:
    numbers = Numbers(4)
    for count in (0, 3, 4, 9):
        assert torch.equal(numbers(count), torch.arange(count))
    assert not numbers.state_dict()


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_rows_are_kept_and_get_both_gradients(backend: str) -> None:
    x = torch.arange(12.0).view(2, 3, 2).requires_grad_()
    all_rows, kept = keep_rows(x, torch.tensor([0, 2]), backend)
    assert torch.equal(all_rows, x) and torch.equal(kept, x[:, [0, 2]])
    (all_rows.sum() + (2 * kept).sum()).backward()
    assert x.grad.sum(2).tolist() == [[6.0, 2.0, 6.0]] * 2
