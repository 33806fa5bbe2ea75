"""One training step, which the host never waits for: no value is read back from the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pps_fast.config import Precision
from pps_fast.distributed import ALONE, Share, World
from pps_fast.train.optimizer import Adam
from pps_fast.types import Batch, LossReport, ModelOutput


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Results of a step, on the model's device and detached from the graph.

    Attributes:
        loss: the losses before the update.
        grad_norm: [] global L2 norm of the gradient before clipping.
    """

    loss: LossReport
    grad_norm: Tensor

    @property
    def is_finite(self) -> Tensor:
        """[] bool, loss and gradient of this step are finite."""
        return torch.isfinite(self.loss.total) & torch.isfinite(self.grad_norm)

    def clone(self) -> StepReport:
        """Returns a copy that shares no memory with it: parts of one tensor, which one launch fills."""
        loss = self.loss
        scalars = [loss.total, self.grad_norm, *loss.terms.values()]
        values = torch.cat([*(scalar.unsqueeze(0) for scalar in scalars), loss.sample_total])
        total, norm, *terms = values[: len(scalars)].unbind()
        named = dict(zip(loss.terms, terms, strict=True))
        copy = LossReport(total=total, terms=named, sample_total=values[len(scalars) :])
        return StepReport(loss=copy, grad_norm=norm)


class TrainStep:
    """Forward, losses, backward, clipping and update of one batch.

    A step whose loss or gradient is not finite changes no parameter and no moment, and neither does any later step:
    `is_finite` becomes False on the device and stays False. The model thus keeps its state before the first bad batch,
    however late the host looks.

    Args:
        model: called with a batch; in train mode, on the device of its batches.
        objective: from the model's output to a LossReport.
        optimizer: over the model's parameters.
        clip_norm: largest global L2 norm of the gradient, > 0.
        precision: 'bf16' autocasts the model's forward; 'tf32' lets fp32 matrix products be rounded, forward and
            backward; losses and update stay as they are.
        world: processes that divide each batch among them; the optimizers are of the same.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[[ModelOutput], LossReport],
        optimizer: Adam,
        clip_norm: float,
        precision: Precision = "fp32",
        world: World = ALONE,
    ) -> None:
        if precision == "auto":
            raise ValueError("train.precision = 'auto': is decided for whole runs only; name fp32, tf32 or bf16")
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.objectives: tuple[Callable[[ModelOutput], LossReport], ...] = (objective,)
        """all objectives of a step"""
        self.optimizers: tuple[Adam, ...] = (optimizer,)
        """all optimizers of a step"""
        self.clip_norm = clip_norm
        self.precision = precision
        self.world = world
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.is_finite = torch.ones((), dtype=torch.bool, device=self.parameters[0].device)
        """[] bool, all steps so far were finite"""
        # replaced for a device that may be absent (see `train.fake_step`)
        self.autocast: Callable[..., AbstractContextManager[Any]] = torch.autocast
        self.differentiate: Callable[..., None] = torch.autograd.backward

    def __call__(self, batch: Batch, share: Share | None = None) -> StepReport:
        """Trains on one batch and returns what happened, without waiting for it.

        Args:
            batch: B samples on the model's device.
            share: which rows of a batch that several processes divide these are; None for all.
        Returns:
            The report of the whole batch.
        """
        loss = self._backward(batch, share, self.objective)
        return self._update(loss, self.optimizer)

    def _backward(
        self,
        batch: Batch,
        share: Share | None,
        objective: Callable[[ModelOutput], LossReport],
        parameters: Sequence[Tensor] | None = None,
    ) -> LossReport:
        """Forward, losses, and the gradients of some parameters, of all of them by default.

        Every loss is a mean over the batch: weighted by their shares, the gradients of all processes add up to its.
        """
        with _rounded_products(self.precision == "tf32"):
            with self.autocast(batch.frames.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                output = self.model(batch)
            loss = objective(output)
            total = loss.total if share is None else loss.total * share.weight
            self.differentiate(total, inputs=parameters)
        return loss.detach() if share is None else whole_loss(loss.detach(), share, self.world)

    def _update(self, loss: LossReport, optimizer: Adam) -> StepReport:
        """Clips the gradients of an optimizer's parameters, updates these, and clears the gradients."""
        return StepReport(loss=loss, grad_norm=optimizer.clip_and_step(self.clip_norm, self.is_finite, loss.total))


def whole_loss(loss: LossReport, share: Share, world: World) -> LossReport:
    """Returns the losses of a batch from those of the processes' shares, by one exchange; a loss not finite stays so.

    Args:
        loss: of the share, detached; of one sample, which does not count, for a share of none.
        share: of this process.
    """
    means = torch.stack([loss.total, *loss.terms.values()])
    # a weight of 0 would make NaN of what is not finite, and so it is with the process whose sample it is
    parts = torch.zeros(len(means) + share.total, dtype=means.dtype, device=means.device)
    if share.count:
        begin = len(means) + share.first
        parts[: len(means)] = means * share.weight
        parts[begin : begin + share.count] = loss.sample_total
    world.sum_(parts)
    total, *terms = parts[: len(means)].unbind()
    return LossReport(total=total, terms=dict(zip(loss.terms, terms, strict=True)), sample_total=parts[len(means) :])


@contextmanager
def _rounded_products(is_wanted: bool) -> Iterator[None]:
    """Lets matrix products of fp32 round their operands to tf32 inside the block, torch's and our kernels'."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if is_wanted else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
