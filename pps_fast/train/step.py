"""One training step, which the host never waits for: no value is read back from the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pps_fast.config import Precision
from pps_fast.train.optimizer import Adam
from pps_fast.types import Batch, LossReport, ModelOutput


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Results of a step, on the model's device and detached from the graph.

    Attributes:
        loss: the losses before the update.
        grad_norm: [] global L2 norm of the gradient before clipping.
        is_finite: [] bool, loss and gradient of this step are finite.
    """

    loss: LossReport
    grad_norm: Tensor
    is_finite: Tensor

    def clone(self) -> StepReport:
        """Returns a copy that shares no memory with it."""
        return StepReport(loss=self.loss.clone(), grad_norm=self.grad_norm.clone(), is_finite=self.is_finite.clone())


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
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[[ModelOutput], LossReport],
        optimizer: Adam,
        clip_norm: float,
        precision: Precision = "fp32",
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
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.is_finite = torch.ones((), dtype=torch.bool, device=self.parameters[0].device)
        """[] bool, all steps so far were finite"""
        # replaced for a device that may be absent (see `train.fake_step`)
        self.autocast: Callable[..., AbstractContextManager[Any]] = torch.autocast
        self.differentiate: Callable[..., None] = torch.autograd.backward

    def __call__(self, batch: Batch) -> StepReport:
        """Trains on one batch and returns what happened, without waiting for it.

        Args:
            batch: B samples on the model's device.
        """
        loss = self._backward(batch, self.objective)
        return self._update(loss, self.optimizer)

    def _backward(
        self, batch: Batch, objective: Callable[[ModelOutput], LossReport], parameters: Sequence[Tensor] | None = None
    ) -> LossReport:
        """Forward, losses, and the gradients of some parameters, of all of them by default."""
        with _rounded_products(self.precision == "tf32"):
            with self.autocast(batch.frames.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                output = self.model(batch)
            loss = objective(output)
            self.differentiate(loss.total, inputs=parameters)
        return loss

    def _update(self, loss: LossReport, optimizer: Adam) -> StepReport:
        """Clips the gradients of an optimizer's parameters, updates these, and clears the gradients."""
        is_finite = torch.isfinite(loss.total.detach())
        self.is_finite.logical_and_(is_finite)
        norm = optimizer.clip_and_step(self.clip_norm, self.is_finite)
        is_finite = is_finite & torch.isfinite(norm)
        return StepReport(loss=loss.detach(), grad_norm=norm, is_finite=is_finite)


@contextmanager
def _rounded_products(is_wanted: bool) -> Iterator[None]:
    """Lets matrix products of fp32 round their operands to tf32 inside the block, torch's and our kernels'."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if is_wanted else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
