"""The plain schedule: one row of the features is that of all, and the best are taken from the scores of all masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.encoder.transformer import Stack
from pps_fast.reconstructor.plain import Layers, negatives_of, scores_of_all
from pps_fast.reconstructor.reconstructor import SCHEDULES
from pps_fast.types import MaskSet, ReconstructorInput
from tests.support.cases import randomize, small_config
from tests.support.compare import assert_agree

CONFIG = small_config(reconstructor__num_layers=2)
WIDTH = CONFIG.encoder.hidden_dim


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _inputs(generator: torch.Generator) -> ReconstructorInput:
    """2 samples of 5 positions and 5 tokens, the second with padding of both."""
    num_words = torch.tensor([3, 1])
    return ReconstructorInput(
        frames=_draw(generator, 2, 5, WIDTH),
        frame_valid=torch.arange(5) < torch.tensor([[5], [2]]),
        query=_draw(generator, 2, 5, WIDTH),
        word_valid=torch.arange(5) < (num_words + 1).unsqueeze(1),
        num_words=num_words,
    )


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_one_row_of_the_features_is_that_of_all_and_masks_do_not_meet(schedule: str) -> None:
    generator = torch.Generator().manual_seed(0)
    stacks = [randomize(Stack(CONFIG, 2, has_memory).double()) for has_memory in (False, True)]
    layers, inputs = Layers(*stacks, vocabulary=None), _inputs(generator)
    dropout_key = torch.randint(-(2**31), 2**31, (2, 3), generator=generator).to(torch.int32)
    masks = MaskSet(log_masks=-_draw(generator, 2, 3, 5).abs(), dropout_key=dropout_key)
    features = SCHEDULES[schedule].features
    every, row = features(layers, inputs, masks), features(layers, inputs, masks, torch.tensor([4, 2]))
    assert every.shape == (2, 3, 5, WIDTH) and row.shape == (2, 3, 1, WIDTH)
    assert_agree("row", row[:, :, 0], torch.stack((every[0, :, 4], every[1, :, 2])), atol=1e-12)
    index = torch.tensor([[2, 0], [1, 1]])
    expected = every[torch.arange(2).unsqueeze(1), index]
    assert_agree("some masks", features(layers, inputs, masks.take(index)), expected, atol=1e-12)


def test_negatives_of_a_proposal_lie_side_by_side() -> None:
    assert negatives_of(torch.tensor([[2, 0]]), 1).tolist() == [[[2], [0]]]
    assert negatives_of(torch.tensor([[2, 0], [1, 1]]), 2).tolist() == [[[4, 5], [0, 1]], [[2, 3], [2, 3]]]


def test_the_best_are_taken_with_their_negatives() -> None:
    # 3 positives, 2 negatives of each, the whole video
    nll = torch.tensor([[3.0, 1.0, 2.0, 10, 11, 12, 13, 14, 15, 9]])
    scores = scores_of_all(nll, num_proposals=3, num_best=2)
    assert scores.positive_nll.tolist() == [[3, 1, 2]] and scores.best.tolist() == [[1, 2]]
    assert scores.best_nll.tolist() == [[1, 2]] and scores.whole_video_nll.tolist() == [9]
    assert scores.negative_nll.tolist() == [[[12, 13], [14, 15]]]
