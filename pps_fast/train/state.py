"""State of training besides the weights: moments and update count of the optimizers, as named tensors.

And what a model takes over from its training videos before the first update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pps_fast.model import PPS
from pps_fast.runs.model_folder import ModelInputs
from pps_fast.train.optimizer import MOMENTS, Adam

_COUNT = "update"


def training_state(model: nn.Module, optimizers: Sequence[Adam]) -> dict[str, Tensor]:
    """Returns "MOMENT.PARAMETER" -> moment of every parameter that has had a gradient, and "update" -> their count.

    Args:
        model: whose names the parameters have.
        optimizers: over disjoint parameters of the model, all after the same number of updates.
    """
    tensors = {_COUNT: optimizers[0].param_groups[0]["update"]}
    for optimizer in optimizers:
        for name, parameter in model.named_parameters():
            for moment, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}.{name}"] = value
    return tensors


def load_training_state(model: nn.Module, optimizers: Sequence[Adam], tensors: Mapping[str, Tensor]) -> None:
    """Restores the state that `training_state` returned; tensors of other names are ignored.

    Raises:
        ValueError: without a count of updates, or for a moment of another shape than its parameter.
    """
    if _COUNT not in tensors:
        raise ValueError(f"no tensor {_COUNT}; it was not written by pps_fast.train")
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["update"].copy_(tensors[_COUNT])
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        for moment in MOMENTS:
            saved = tensors.get(f"{moment}.{name}")
            if saved is None:
                # the parameter has never had a gradient
                continue
            if saved.shape != parameter.shape:
                shapes = f"shape {list(saved.shape)}, the model {list(parameter.shape)}"
                raise ValueError(f"{moment}.{name} has {shapes}")
            state = owner[parameter].state[parameter]
            if moment in state:
                # in place, as it may be part of a buffer
                state[moment].copy_(saved)
            else:
                state[moment] = saved.to(device=parameter.device, copy=True)


def take_statistics(model: PPS, inputs: ModelInputs) -> None:
    """Gives a model mean and scale of the frames of its training videos, in place, for `encoder.frames`.

    A saved model has them, so that they are not taken again when it is loaded or resumed.
    """
    if inputs.frame_mean is not None and inputs.frame_scale is not None:
        model.embed.frame_input.take(torch.from_numpy(inputs.frame_mean), torch.from_numpy(inputs.frame_scale))
