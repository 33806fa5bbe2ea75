"""Strategies of pulling."""

from __future__ import annotations

import pytest
import torch

from pps_fast.losses.pull_push import PULL_STRATEGIES
from tests.compare import assert_agree

CENTER = torch.tensor([[0.5, 0.1, 0.3, 0.9, 0.4]], dtype=torch.float64)
GROUP = torch.tensor([0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("distant", 0.8**2),
        # the lower median of 0.1, 0.3, 0.4, 0.9 is 0.3
        ("middle", 0.2**2 + 0.6**2),
        ("all", 0.2**2 + 0.3**2 + 0.8**2 + 0.1**2 + 0.6**2 + 0.5**2),
    ],
)
def test_pull_of_each_strategy(name: str, expected: float) -> None:
    got = PULL_STRATEGIES[name](CENTER, GROUP, 2, backend="torch")
    assert_agree(name, got, torch.tensor(expected, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("name", sorted(PULL_STRATEGIES))
def test_the_loss_is_the_mean_over_samples_of_the_sum_over_proposals(name: str) -> None:
    pull, zero = PULL_STRATEGIES[name], torch.full_like(CENTER, 0.2)
    one = pull(CENTER, GROUP, 2)
    assert_agree("batch", pull(torch.cat((CENTER, zero)), GROUP, 2), one / 2, atol=1e-14)
    twice = pull(torch.cat((CENTER, CENTER), 1), torch.cat((GROUP, GROUP + 2)), 4)
    assert_agree("proposals", twice, 2 * one, atol=1e-14)


@pytest.mark.parametrize("name", sorted(PULL_STRATEGIES))
def test_a_step_against_the_gradient_brings_the_farthest_centers_together(name: str) -> None:
    center = CENTER.clone().requires_grad_()
    PULL_STRATEGIES[name](center, GROUP, 2).backward()
    moved = CENTER - 0.1 * center.grad
    assert moved[0, 3] - moved[0, 1] < 0.8 - 0.05
    assert moved[0, 0] == CENTER[0, 0]
