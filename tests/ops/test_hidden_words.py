"""Which words are hidden, and that the kernel hides the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pps_fast.ops.hidden_words import hidden_words
from pps_fast.ops.registration import is_interpreted
from tests.support.cases import random_batch
from tests.support.compare import assert_agree
from tests.support.oracles_model import hidden_words as loops

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")


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


@needs_interpreter
@pytest.mark.parametrize("divisor", [1, 3, 30])
@pytest.mark.parametrize("columns", [20, 22, 70])
def test_the_kernel_hides_the_same_words(divisor: int, columns: int) -> None:
    batch = random_batch(tuple(range(1, 21)), columns, dtype=torch.float32)
    # scores with ties
    noise = (2 * batch.word_noise).round()
    hide_prob = (8 * batch.hide_prob).round() / 8
    got, expected = (hidden_words(hide_prob, noise, batch.num_words, divisor, name) for name in ("triton", "torch"))
    assert got.dtype == torch.bool and torch.equal(got, expected)


@needs_interpreter
def test_the_registered_operator_passes_opcheck() -> None:
    batch = random_batch((2, 3), 4, dtype=torch.float32)
    arguments = (batch.hide_prob.log(), batch.word_noise, batch.num_words, 3)
    torch.library.opcheck(torch.ops.pps_fast.hidden_words.default, arguments)
