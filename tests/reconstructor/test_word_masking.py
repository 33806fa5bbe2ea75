"""How many words are hidden, and which."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pps_fast.reconstructor.word_masking import hidden_words
from tests.cases import random_batch
from tests.compare import assert_agree
from tests.oracles_model import hidden_words as loops


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
