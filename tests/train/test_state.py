"""The state of training goes out and comes back as named tensors."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pps_fast.runs.checkpoint import find_checkpoint
from pps_fast.train.optimizer import Adam
from pps_fast.train.state import load_training_state, training_state
from tests.support.train_runs import run_small, small_config


def _updated(num_updates: int) -> tuple[nn.Module, list[Adam]]:
    """A model whose bias never has a gradient, and its two optimizers after some updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    optimizers = [Adam(part.parameters(), lr=0.1) for part in model]
    for _ in range(num_updates):
        for part in model:
            part.weight.grad = torch.randn_like(part.weight)
        for optimizer in optimizers:
            optimizer.step()
    return model, optimizers


def test_moments_have_the_names_of_their_parameters_and_unused_parameters_have_none():
    names = {f"{moment}_moment.{number}.weight" for moment in ("first", "second") for number in (0, 1)}
    assert training_state(*_updated(1)).keys() == {"update", *names}


@pytest.mark.parametrize("num_updates", [0, 2])
def test_state_replaces_that_of_an_optimizer_before_and_after_its_first_update(num_updates):
    tensors = {name: value.clone() for name, value in training_state(*_updated(3)).items()}
    model, optimizers = _updated(num_updates)
    load_training_state(model, optimizers, tensors)
    restored = training_state(model, optimizers)
    assert restored.keys() == tensors.keys()
    assert all(torch.equal(restored[name], value) for name, value in tensors.items())


def test_tensors_that_do_not_fit_are_refused_by_name():
    model, optimizers = _updated(1)
    tensors = training_state(model, optimizers)
    with pytest.raises(ValueError, match="no tensor update"):
        load_training_state(model, optimizers, {})
    with pytest.raises(ValueError, match=r"first_moment.0.weight has shape \[5\], the model \[2, 3\]"):
        load_training_state(model, optimizers, {**tensors, "first_moment.0.weight": torch.zeros(5)})


def test_resuming_names_the_file_of_a_state_that_does_not_fit(tmp_path):
    config = small_config(train__max_steps=2)
    run_small(config, tmp_path)
    path = find_checkpoint(tmp_path, "latest") / "training.safetensors"
    save_file({name: value for name, value in load_file(path).items() if name != "update"}, path)
    with pytest.raises(ValueError, match="training.safetensors: truncated or damaged"):
        run_small(config, tmp_path, resume=True)
