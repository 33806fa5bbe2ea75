"""L_rec of a model's output."""

from __future__ import annotations

import pytest
import torch

from pps_fast.losses.reconstruction import reconstruction_per_sample
from tests import oracles
from tests.cases import random_output
from tests.compare import assert_agree


@pytest.mark.parametrize("num_best", [1, 2, 3])
def test_reconstruction_agrees_with_the_loops_over_all_positives(num_best: int) -> None:
    output = random_output(num_samples=6, num_best=num_best)
    arrays = [value.detach().numpy() for value in (output.positive_nll, output.whole_video_nll)]
    got = reconstruction_per_sample(output)
    assert_agree("rec", got, oracles.reconstruction_loss(*arrays, num_best), atol=1e-14)


@pytest.mark.parametrize("num_best", [1, 2])
def test_only_the_best_positives_and_the_whole_video_are_trained(num_best: int) -> None:
    output = random_output(num_samples=6, num_best=num_best)
    reconstruction_per_sample(output).sum().backward()
    assert_agree("best", output.best_nll.grad, torch.full((6, num_best), 1 / num_best))
    assert_agree("whole video", output.whole_video_nll.grad, torch.ones(6))
    assert output.negative_nll.grad is None and output.positive_nll.grad is None
