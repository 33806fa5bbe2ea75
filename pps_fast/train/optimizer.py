"""Adam as the published code computes it, over flat buffers, written so that a step never waits for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pps_fast.ops.clip_adam import AdamConstants, clip_adam

MOMENTS = ("first_moment", "second_moment")
"""names of a parameter's state"""
# parameters begin at multiples of so many values: kernels that read them expect addresses of 16 bytes at least
_ALIGNMENT = 64


@dataclass(frozen=True)
class _Block:
    """Parameters of one dtype whose values, gradients and moments lie in one buffer each, [n] with zeros in the gaps.

    Attributes:
        parameters, gradients, first, second: the buffers.
    """

    parameters: Tensor
    gradients: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies: in which memory (`_memory_of`), and the part of the gradients that is its `grad`."""

    memory: int
    gradient: Tensor


def _memory_of(x: Tensor) -> int:
    """Identifies the memory that a tensor is part of; of fake tensors too, which have no address."""
    return x.untyped_storage()._cdata


class Adam(torch.optim.Optimizer):
    """Adam whose eps is added to sqrt(v) before the bias correction, with clipping and decoupled weight decay.

    For its formula see `ops.clip_adam`. `torch.optim.Adam` corrects v before it adds eps, which is another number
    wherever |g| is near eps.

    At its first update a parameter moves: from then on its values, its gradient and its moments are parts of buffers
    that all parameters share, so that a step is few launches whatever the number of parameters. `parameter.grad` stays
    where it is and is filled with zeros instead of being set to None. Loading weights in place (`load_state_dict`) is
    fine; the model must be on its device, in its dtype, before the optimiser is made.

    The rate is the 0-d tensor `param_groups[0]["lr"]`, to be filled in place (`set_learning_rate`), and the number of
    updates t the 0-d fp64 tensor `param_groups[0]["update"]`; both live on the parameters' device, so that nothing is
    read back. A parameter that has never had a gradient is left alone. t counts the optimiser's updates, not the
    parameter's: a parameter that gets its first gradient late is bias-corrected as if its earlier gradients had been 0.

    Args:
        parameters: of one device; they are this optimiser's alone, as are norm, rate and count.
        lr: learning rate until the first `set_learning_rate`.
        betas: decay of the two moments, each 0 to below 1.
        eps: added to sqrt(v), > 0.
        weight_decay: decoupled, 0 or more.
        backend: of `ops.clip_adam`: auto, triton or torch.

    Raises:
        ValueError: for a constant outside its range, or parameters in groups or on several devices.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        backend: str = "auto",
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam: betas = {betas}: expected two values from 0 to below 1")
        if lr < 0 or eps <= 0 or weight_decay < 0:
            raise ValueError(
                f"Adam: lr = {lr}, eps = {eps}, weight_decay = {weight_decay}: expected lr and weight_decay 0 or more, "
                "eps above 0"
            )
        self.backend = backend
        self._blocks: list[_Block] = []
        self._places: dict[Tensor, _Place] = {}
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        if len(self.param_groups) > 1:
            raise ValueError(f"Adam: {len(self.param_groups)} groups of parameters: make an optimiser for each")
        devices = sorted({str(parameter.device) for parameter in self._parameters})
        if len(devices) > 1:
            raise ValueError(f"Adam: parameters on {' and '.join(devices)}: make an optimiser for each device")
        group, device = self.param_groups[0], self._parameters[0].device
        group["lr"] = torch.as_tensor(lr, dtype=torch.float64, device=device).clone()
        group["update"] = torch.zeros((), dtype=torch.float64, device=device)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        # moments that were put in the place of others find their way into buffers at the next update
        self._blocks, self._places = [], {}

    @property
    def _parameters(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def set_learning_rate(self, rate: float) -> None:
        """Fills the learning rate in place."""
        self.param_groups[0]["lr"].fill_(rate)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Fills the gradients with zeros, in place.

        Raises:
            ValueError: for set_to_none: the gradients have their place in a buffer.
        """
        if set_to_none:
            raise ValueError("Adam.zero_grad: set_to_none = True: gradients keep their place; leave it out")
        for block in self._blocks:
            block.gradients.zero_()
        for parameter in self._parameters:
            place = self._places.get(parameter)
            if parameter.grad is not None and (place is None or parameter.grad is not place.gradient):
                parameter.grad.zero_()

    def step(self, closure: None = None) -> None:
        """Updates without clipping; else as `clip_and_step`.

        Args:
            closure: not supported; there for the signature of torch's optimisers.

        Raises:
            ValueError: with a closure.
        """
        if closure is not None:
            raise ValueError("Adam.step: closure: expected None; call backward before the step")
        update = self.param_groups[0]["update"]
        self.clip_and_step(math.inf, torch.ones((), dtype=torch.bool, device=update.device))

    @torch.no_grad()
    def clip_and_step(self, clip_norm: float, is_sound: Tensor) -> Tensor:
        """Clips the gradients by their global norm, updates the parameters, and leaves gradients of 0.

        Args:
            clip_norm: largest L2 norm of all this optimiser's gradients, > 0.
            is_sound: [] bool on the parameters' device. Turns False where the norm is not finite. Where it is False
                the call changes nothing: no parameter, no moment, no count, whatever the gradients hold (NaN included).
        Returns:
            [] norm before clipping; 0 while no parameter has had a gradient.
        Raises:
            ValueError: for a model that was moved or converted, or whose gradients were set to None.
        """
        self._take_in()
        group = self.param_groups[0]
        if not self._blocks:
            return torch.zeros((), dtype=self._parameters[0].dtype, device=is_sound.device)
        constants = AdamConstants(clip_norm, *group["betas"], group["eps"], group["weight_decay"])
        buffers = zip(*((b.parameters, b.gradients, b.first, b.second) for b in self._blocks), strict=True)
        state = group["lr"], group["update"], is_sound
        return clip_adam(*map(list, buffers), *state, constants, backend=self.backend)

    def _take_in(self) -> None:
        """Checks the parameters that have their places, and gives one to those with a first gradient."""
        new: dict[torch.dtype, list[Tensor]] = {}
        for index, parameter in enumerate(self._parameters):
            place = self._places.get(parameter)
            if place is None:
                if parameter.grad is not None:
                    new.setdefault(parameter.dtype, []).append(parameter)
            elif _memory_of(parameter) != place.memory:
                raise ValueError(
                    f"Adam: parameter {index} {list(parameter.shape)} was moved or converted after its first update; "
                    "make the optimiser after the model is where it shall be"
                )
            elif parameter.grad is not place.gradient:
                self._put_back(index, parameter, place)
        for parameters in new.values():
            self._add_block(parameters)

    def _put_back(self, index: int, parameter: Tensor, place: _Place) -> None:
        """Copies a gradient that was assigned to its place."""
        if parameter.grad is None:
            raise ValueError(
                f"Adam: the gradient of parameter {index} {list(parameter.shape)} was set to None; gradients keep "
                "their place, clear them with the optimiser's zero_grad()"
            )
        place.gradient.copy_(parameter.grad)
        parameter.grad = place.gradient

    def _add_block(self, parameters: list[Tensor]) -> None:
        """Moves parameters of one dtype, their gradients and what moments they have into buffers."""
        device = self.param_groups[0]["update"].device
        begins, total = [], 0
        for parameter in parameters:
            if parameter.device != device:
                raise ValueError(
                    f"Adam: a parameter is on {parameter.device}, the optimiser was made on {device}; make it after "
                    "the model is where it shall be"
                )
            begins.append(total)
            total += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        block = _Block(*(torch.zeros(total, dtype=parameters[0].dtype, device=device) for _ in range(4)))
        for parameter, begin in zip(parameters, begins, strict=True):
            part = slice(begin, begin + parameter.numel())
            value, gradient, first, second = (
                buffer[part].view(parameter.shape)
                for buffer in (block.parameters, block.gradients, block.first, block.second)
            )
            value.copy_(parameter)
            gradient.copy_(parameter.grad)
            parameter.data, parameter.grad = value, gradient
            state = self.state[parameter]
            for moment, own in zip(MOMENTS, (first, second), strict=True):
                if moment in state:
                    own.copy_(state[moment])
                state[moment] = own
            self._places[parameter] = _Place(_memory_of(parameter), gradient)
        self._blocks.append(block)
