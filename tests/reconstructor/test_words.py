"""Which words are hidden, and which columns must be predicted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pps_fast.reconstructor.words import TARGET_LENGTHS, hidden_words, target_columns
from tests.support.cases import random_batch
from tests.support.compare import assert_agree
from tests.support.oracles_model import hidden_words as loops

NUM_WORDS = torch.tensor([2, 5, 1, 4])


@pytest.mark.parametrize("divisor", [1, 2, 3, 30])
def test_hidden_words_agree_with_the_loops(divisor: int) -> None:
    batch = random_batch(tuple(range(1, 21)), 22)
    got = hidden_words(batch.hide_prob, batch.word_noise, batch.num_words, divisor)
    arrays = [value.numpy() for value in (batch.hide_prob, batch.word_noise, batch.num_words)]
    assert_agree("hidden", got, loops(*arrays, divisor))


def test_a_third_of_the_words_is_hidden_at_least_one_and_never_padding() -> None:
    lengths = tuple(range(1, 21))
    batch = random_batch(lengths, 22)
    got = hidden_words(batch.hide_prob, torch.full_like(batch.word_noise, 30.0), batch.num_words, 3)
    assert got.sum(1).tolist() == [max(n // 3, 1) for n in lengths]
    for row, n in zip(got, lengths, strict=True):
        assert not row[n:].any()


def test_pairs_are_drawn_without_replacement_with_their_probabilities() -> None:
    prob = np.array([0.4, 0.3, 0.2, 0.1, 0.0, 0.0])
    num = 40_000
    noise = torch.from_numpy(np.random.default_rng(0).gumbel(size=(num, 6)))
    drawn = hidden_words(torch.from_numpy(prob).expand(num, -1), noise, torch.full((num,), 4), 2)
    for first, second in itertools.combinations(range(4), 2):
        expected = prob[first] * prob[second] * (1 / (1 - prob[first]) + 1 / (1 - prob[second]))
        got = (drawn[:, first] & drawn[:, second]).double().mean().item()
        # five standard deviations of a frequency over 40,000 draws
        assert abs(got - expected) < 5 * (expected * (1 - expected) / num) ** 0.5, (first, second)
    assert not drawn[:, 4:].any()


def test_equal_scores_still_hide_the_right_number() -> None:
    got = hidden_words(torch.full((1, 6), 1 / 6), torch.zeros(1, 6), torch.tensor([6]), 3)
    assert_agree("ties", got, torch.tensor([[True, True, False, False, False, False]]))


@pytest.mark.parametrize(
    ("name", "counts"),
    [("exact", [2, 5, 1, 4]), ("plus_one", [3, 5, 2, 5]), ("end_of_sentence", [3, 6, 2, 5])],
)
def test_columns_of_each_target_length(name: str, counts: list[int]) -> None:
    got = target_columns(NUM_WORDS, 7, name)
    assert got.dtype == torch.bool
    expected = torch.tensor([[t < count for t in range(7)] for count in counts])
    assert_agree(name, got, expected)


def test_every_target_length_is_covered_above() -> None:
    assert sorted(TARGET_LENGTHS) == ["end_of_sentence", "exact", "plus_one"]


def test_the_published_off_by_one_depends_on_the_longest_sentence_of_the_batch() -> None:
    alone = target_columns(NUM_WORDS[3:], 7, "plus_one")
    assert alone.sum() == 4
    assert target_columns(NUM_WORDS, 7, "plus_one")[3].sum() == 5


@pytest.mark.parametrize("name", sorted(TARGET_LENGTHS))
def test_every_sentence_has_a_target(name: str) -> None:
    assert target_columns(torch.tensor([1, 1]), 1, name).all()
