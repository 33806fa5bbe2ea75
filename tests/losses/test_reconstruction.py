"""L_rec of a model's output."""

from __future__ import annotations

import pytest
import torch

from pps_fast.losses.reconstruction import best_and_negative, reconstruction_per_sample
from tests import oracles
from tests.cases import random_output
from tests.compare import assert_agree


@pytest.mark.parametrize("num_best", [1, 2, 3])
def test_reconstruction_agrees_with_the_loops(num_best: int) -> None:
    output = random_output(num_samples=6)
    arrays = [value.detach().numpy() for value in (output.positive_nll, output.whole_video_nll)]
    got = reconstruction_per_sample(output, num_best)
    assert_agree("rec", got, oracles.reconstruction_loss(*arrays, num_best), atol=1e-14)


@pytest.mark.parametrize("num_best", [1, 2])
def test_negatives_are_those_of_the_best_positives(num_best: int) -> None:
    output = random_output(num_samples=6)
    best, negative = best_and_negative(output, num_best)
    index = oracles.best_proposals(output.positive_nll.detach().numpy(), num_best)
    for b, ks in enumerate(index):
        assert_agree("best", best[b], output.positive_nll[b, list(ks)])
        assert_agree("negative", negative[b], output.negative_nll[b, list(ks)])


def test_only_the_best_positive_and_the_whole_video_are_trained() -> None:
    output = random_output(num_samples=6)
    reconstruction_per_sample(output, 1).sum().backward()
    expected = torch.zeros(6, 3, dtype=torch.float64)
    expected[torch.arange(6), output.positive_nll.argmin(1)] = 1
    assert_agree("positives", output.positive_nll.grad, expected)
    assert_agree("whole video", output.whole_video_nll.grad, torch.ones(6))
    assert output.negative_nll.grad is None
