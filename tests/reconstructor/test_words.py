"""Which columns must be predicted."""

from __future__ import annotations

import pytest
import torch

from pps_fast.reconstructor.words import TARGET_LENGTHS, target_columns
from tests.support.compare import assert_agree

NUM_WORDS = torch.tensor([2, 5, 1, 4])


@pytest.mark.parametrize(
    ("name", "counts"),
    [("exact", [2, 5, 1, 4]), ("plus_one", [3, 5, 2, 5]), ("end_of_sentence", [3, 6, 2, 5])],
)
def test_columns_of_each_target_length(name: str, counts: list[int]) -> None:
    got = target_columns(NUM_WORDS, torch.arange(7), name)
    assert got.dtype == torch.bool
    expected = torch.tensor([[t < count for t in range(7)] for count in counts])
    assert_agree(name, got, expected)


def test_every_target_length_is_covered_above() -> None:
    assert sorted(TARGET_LENGTHS) == ["end_of_sentence", "exact", "plus_one"]


def test_the_published_off_by_one_depends_on_the_longest_sentence_of_the_batch() -> None:
    alone = target_columns(NUM_WORDS[3:], torch.arange(7), "plus_one")
    assert alone.sum() == 4
    assert target_columns(NUM_WORDS, torch.arange(7), "plus_one")[3].sum() == 5


@pytest.mark.parametrize("name", sorted(TARGET_LENGTHS))
def test_every_sentence_has_a_target(name: str) -> None:
    assert target_columns(torch.tensor([1, 1]), torch.arange(1), name).all()
