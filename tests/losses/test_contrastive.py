"""L_ivc of a model's output."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pps_fast.config import LossesConfig
from pps_fast.losses.contrastive import contrastive
from tests import oracles
from tests.cases import random_output
from tests.compare import assert_agree


@pytest.mark.parametrize("num_best", [1, 2, 3])
@pytest.mark.parametrize("margins", [(0.1, 0.15), (0.0, 0.7)])
def test_contrastive_agrees_with_the_loops(num_best: int, margins: tuple[float, float]) -> None:
    output = random_output(num_samples=8)
    options = LossesConfig(num_best=num_best, whole_video_margin=margins[0], negative_margin=margins[1])
    fields = (output.positive_nll, output.whole_video_nll, output.negative_nll)
    arrays = [value.detach().numpy() for value in fields]
    expected = oracles.contrastive_loss(*arrays, margins, num_best)
    assert expected > 0
    assert_agree("ivc", contrastive(output, options), torch.tensor(expected, dtype=torch.float64), atol=1e-14)


def test_only_the_negative_of_the_best_positive_gets_a_gradient_and_none_is_detached() -> None:
    output = random_output(num_samples=8)
    contrastive(output, LossesConfig(whole_video_margin=2.0, negative_margin=2.0)).backward()
    best = torch.zeros(8, 3, dtype=torch.float64)
    best[torch.arange(8), output.positive_nll.argmin(1)] = 1
    assert_agree("negatives", output.negative_nll.grad, -best / 8, atol=1e-15)
    assert_agree("positives", output.positive_nll.grad, 2 * best / 8, atol=1e-15)
    assert_agree("whole video", output.whole_video_nll.grad, torch.full((8,), -1 / 8, dtype=torch.float64), atol=1e-15)


def test_a_positive_ahead_by_both_margins_costs_nothing() -> None:
    output = random_output()
    ahead = replace(output, positive_nll=output.positive_nll - 5)
    loss = contrastive(ahead, LossesConfig())
    loss.backward()
    assert loss.item() == 0
    assert_agree("negatives", output.negative_nll.grad, torch.zeros_like(output.negative_nll))
