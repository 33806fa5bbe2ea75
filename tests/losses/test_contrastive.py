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


@pytest.mark.parametrize("num_negatives", [1, 2])
@pytest.mark.parametrize("num_best", [1, 2, 3])
@pytest.mark.parametrize("margins", [(0.1, 0.15), (0.0, 0.7)])
def test_contrastive_agrees_with_the_loops(num_best: int, num_negatives: int, margins: tuple[float, float]) -> None:
    output = random_output(num_samples=8, num_best=num_best, num_negatives=num_negatives)
    options = LossesConfig(num_best=num_best, whole_video_margin=margins[0], negative_margin=margins[1])
    fields = (output.best_nll, output.whole_video_nll, output.negative_nll)
    arrays = [value.detach().numpy() for value in fields]
    expected = oracles.contrastive_loss(*arrays, margins, num_best)
    assert expected > 0
    assert_agree("ivc", contrastive(output, options), torch.tensor(expected, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("num_negatives", [1, 2])
@pytest.mark.parametrize("num_best", [1, 2])
def test_the_best_and_their_negatives_get_a_gradient_and_none_is_detached(num_best: int, num_negatives: int) -> None:
    output = random_output(num_samples=8, num_best=num_best, num_negatives=num_negatives)
    options = LossesConfig(num_best=num_best, whole_video_margin=2.0, negative_margin=2.0)
    contrastive(output, options).backward()
    share = torch.full((8, num_best), 1 / (8 * num_best), dtype=torch.float64)
    each = -share.unsqueeze(-1).expand(-1, -1, num_negatives)
    assert_agree("negatives", output.negative_nll.grad, each, atol=1e-15)
    assert_agree("best", output.best_nll.grad, (1 + num_negatives) * share, atol=1e-15)
    assert_agree("whole video", output.whole_video_nll.grad, torch.full((8,), -1 / 8, dtype=torch.float64), atol=1e-15)
    assert output.positive_nll.grad is None


def test_a_positive_ahead_by_both_margins_costs_nothing() -> None:
    output = random_output()
    ahead = replace(output, best_nll=output.best_nll - 5)
    loss = contrastive(ahead, LossesConfig())
    loss.backward()
    assert loss.item() == 0
    for name in ("best_nll", "negative_nll", "whole_video_nll"):
        value = getattr(output, name)
        assert_agree(name, value.grad, torch.zeros_like(value))
