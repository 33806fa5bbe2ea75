"""Random outputs of a model, which the losses read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pps_fast.proposals.layout import MixtureLayout
from pps_fast.types import Components, ModelOutput, Proposals
from tests.support.cases import LAYOUTS, softmax_by_group


def random_output(
    layout: MixtureLayout = LAYOUTS["ramp3"],
    num_samples: int = 3,
    num_positions: int = 7,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    num_best: int = 1,
    num_negatives: int = 1,
) -> ModelOutput:
    """Returns a model's output made of leaves with gradients, for the losses; `best_nll` is a leaf of its own."""
    rng = np.random.default_rng(seed)
    num, components = layout.num_proposals, layout.num_components

    def leaf(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (num_samples, *shape))).to(dtype).requires_grad_()

    of_components = Components(
        center=leaf(0.1, 0.9, components),
        width=leaf(0.1, 0.9, components),
        masks=leaf(0, 1, components, num_positions),
        log_masks=leaf(-3, 0, components, num_positions),
    )
    proposals = Proposals(
        components=of_components,
        importance=torch.from_numpy(softmax_by_group(rng.normal(size=(num_samples, components)), layout)).to(dtype),
        masks=leaf(0, 1, num, num_positions),
        log_masks=leaf(-3, 0, num, num_positions),
        start=leaf(0.0, 0.4, num),
        end=leaf(0.5, 1.0, num),
    )
    # so near to each other that most hinges are active
    positive_nll, row = leaf(2.4, 3, num), torch.arange(num_samples)[:, None]
    best = positive_nll.detach().argsort(-1)[:, :num_best]
    return ModelOutput(
        proposals=proposals,
        positive_nll=positive_nll,
        negative_masks=leaf(0, 1, num * num_negatives, num_positions),
        best=best,
        best_nll=positive_nll.detach().gather(1, best).requires_grad_(),
        negative_nll=leaf(2, 2.8, num, num_negatives).detach()[row, best].requires_grad_(),
        whole_video_nll=leaf(2, 2.8),
        reward=leaf(-1, 2, num),
    )
