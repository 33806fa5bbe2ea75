"""Training steps by name: one joint update of all parameters, or two alternating updates on every batch.

CNM alternates, so that its mask head does not learn from the reconstruction loss, which is lowest for wide masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig, Precision
from pps_fast.distributed import ALONE, Share, World
from pps_fast.losses import LOSS_TERMS, Objective
from pps_fast.model import PPS
from pps_fast.randomness import SECOND_NOISE, SECOND_UPDATE, mix
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import StepReport, TrainStep
from pps_fast.types import Batch, LossReport, ModelOutput

# the term of the first update; the second has all others
_FIRST_TERM = "reconstruction"


def redrawn(batch: Batch) -> Batch:
    """Returns the batch with other dropout and hidden words, which follow from its `dropout_key`.

    It runs on the device and waits for nothing.
    """
    dropout_key = mix(mix(batch.dropout_key, SECOND_UPDATE), SECOND_UPDATE)
    column = torch.arange(batch.word_noise.shape[1], dtype=torch.int32, device=dropout_key.device)
    bits = mix(mix(dropout_key, SECOND_NOISE).unsqueeze(1), column)  # [B, L]
    # the half step keeps the uniform numbers off 0 and 1
    uniform = (bits.double() + (2.0**31 + 0.5)) * 2.0**-32
    noise = -torch.log(-torch.log(uniform))
    return replace(batch, dropout_key=dropout_key, word_noise=noise.to(batch.word_noise.dtype))


class AlternatingStep(TrainStep):
    """Two updates per batch: one loss updates some parameters; after another forward pass, a second loss the others.

    Each update clips by the norm of its own gradients. CNM's published code clips the second by a norm that includes
    the first update's gradients, which are still there; that is not reproduced.

    A loss or gradient that is not finite prevents its update and all later ones; a first update that was finite stays
    even if the second was not.

    Args:
        model, clip_norm, precision, world: as for `TrainStep`.
        objectives: of the first and the second update.
        optimizers: of the first and the second update, over disjoint parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        objectives: tuple[Callable[[ModelOutput], LossReport], Callable[[ModelOutput], LossReport]],
        optimizers: tuple[Adam, Adam],
        clip_norm: float,
        precision: Precision = "fp32",
        world: World = ALONE,
    ) -> None:
        super().__init__(model, objectives[0], optimizers[0], clip_norm, precision, world)
        self.objectives = objectives
        self.optimizers = optimizers

    def __call__(self, batch: Batch, share: Share | None = None) -> StepReport:
        """Trains on one batch and returns what happened, without waiting for it.

        Returns:
            The sum of both losses and the terms of both; the norm of all gradients that were used.
        """
        first, second = (self._train(part, share, number) for number, part in enumerate((batch, redrawn(batch))))
        loss = LossReport(
            total=first.loss.total + second.loss.total,
            terms=first.loss.terms | second.loss.terms,
            sample_total=first.loss.sample_total + second.loss.sample_total,
        )
        return StepReport(loss=loss, grad_norm=torch.hypot(first.grad_norm, second.grad_norm))

    def _train(self, batch: Batch, share: Share | None, number: int) -> StepReport:
        """One of the two updates."""
        optimizer = self.optimizers[number]
        parameters = optimizer.param_groups[0]["params"]
        loss = self._backward(batch, share, self.objectives[number], parameters)
        return self._update(loss, optimizer)


def _adam(parameters: Sequence[Tensor], config: PPSConfig, world: World) -> Adam:
    # the loop fills the rate before every step
    return Adam(parameters, lr=0.0, weight_decay=config.train.weight_decay, backend=config.backend, world=world)


def _joint(model: PPS, config: PPSConfig, world: World = ALONE) -> TrainStep:
    """All losses update all parameters."""
    objective = Objective(config).to(next(model.parameters()).device)
    optimizer, options = _adam(list(model.parameters()), config, world), config.train
    return TrainStep(model, objective, optimizer, options.clip_norm, options.precision, world)


def _alternating(model: PPS, config: PPSConfig, world: World = ALONE) -> TrainStep:
    """The reconstruction loss updates all but the mask heads, then the other losses update these."""
    device = next(model.parameters()).device
    second = model.mask_parameters()
    chosen = {id(parameter) for parameter in second}
    first = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    others = [name for name in LOSS_TERMS if name != _FIRST_TERM]
    objectives = (Objective(config, [_FIRST_TERM]).to(device), Objective(config, others).to(device))
    optimizers = (_adam(first, config, world), _adam(second, config, world))
    return AlternatingStep(model, objectives, optimizers, config.train.clip_norm, config.train.precision, world)


# how a run's model is updated, by the names of `config.Update`
TRAIN_STEPS = {"joint": _joint, "alternating": _alternating}
