"""Training steps to time against each other on the same batch, config and weights.

Ours is built by `benchmarks.step.build_step`; the published formulation by `build_published_step`. Both are called with
a `pps_fast.types.Batch` and have the model as `.model`. A comparison is fair only for a `*_released` preset, where both
compute the same losses and gradients, which tests/test_published_baseline.py shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.published import PublishedPPS, is_dead
from benchmarks.published_parts import Hidden
from benchmarks.published_step import PublishedAdam, PublishedStep
from benchmarks.step import build_step
from pps_fast.config import PPSConfig
from pps_fast.ops.hidden_words import hidden_words
from pps_fast.types import Batch, FeatureSizes


def load_live_weights(model: PublishedPPS, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict with the published names, dead weights left as they were initialized.

    `pps_fast.published.weights.export_released` gives zeros for the weights that cannot influence the output; the
    published code trains with its initial values there, and a device may multiply by zeros with less power.

    Args:
        model: any dtype, anywhere.
        state: with every published name.
    Raises:
        RuntimeError: for a missing or unknown name or another shape.
    """
    initial = model.state_dict()
    model.load_state_dict({name: initial.get(name, value) if is_dead(name) else value for name, value in state.items()})


def build_published_step(config: PPSConfig, sizes: FeatureSizes, device: torch.device) -> PublishedStep:
    """Returns a training step of a freshly initialized published model."""
    torch.manual_seed(0)
    model = PublishedPPS(config, sizes).to(device).train()
    return PublishedStep(model, PublishedAdam(model.parameters(), config.train.learning_rate))


def hidden_positions(batch: Batch, divisor: int) -> Hidden:
    """Returns the words that our model hides in a batch, as the published formulation takes them: from 1 on."""
    is_hidden = hidden_words(batch.hide_prob, batch.word_noise, batch.num_words, divisor)
    return [(row.nonzero().flatten() + 1).tolist() for row in is_hidden.cpu()]


def published_total(logged: Mapping[str, float]) -> float:
    """Returns the total loss from the published step's logged numbers (items 38, 39)."""
    return logged["final_loss"] + logged["ivc_loss"]


STEPS: dict[str, Callable[[PPSConfig, FeatureSizes, torch.device], Any]] = {
    "pps_fast": build_step,
    "published": build_published_step,
}
