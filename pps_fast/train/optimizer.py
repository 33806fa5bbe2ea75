"""Adam as the published code computes it, over flat buffers, written so that a step never waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pps_fast.distributed import ALONE, World
from pps_fast.ops.clip_adam import AdamBuffers, AdamConstants, clip_adam
from pps_fast.ops.weights import FlatWeights, copies, memory_of, refresh, room_of

MOMENTS = ("first_moment", "second_moment")
"""names of a parameter's state"""


@dataclass(frozen=True)
class _Block:
    """Parameters of one dtype, whose values, gradients and moments are in one buffer each, [n] with zeros in the gaps.

    Attributes:
        parameters, gradients, first, second: the buffers.
        weights: the parameters as products ask for them, rounded; each update writes the rounded copy.
    """

    parameters: Tensor
    gradients: Tensor
    first: Tensor
    second: Tensor
    weights: FlatWeights


@dataclass(frozen=True)
class _Slot:
    """Where a parameter is in the buffers: its memory (`memory_of`), and the part that is its gradient."""

    memory: int
    gradient: Tensor


class Adam(torch.optim.Optimizer):
    """Adam whose eps is added to sqrt(v) before the bias correction, with clipping and decoupled weight decay.

    For its formula see `ops.clip_adam`. `torch.optim.Adam` corrects v before it adds eps, which gives other
    results where |g| is near eps.

    On its first update a parameter is moved into flat buffers that all parameters share for values, gradients and
    moments, so that a step is few launches whatever the number of parameters. `parameter.grad` stays
    in place and is filled with zeros instead of being set to None. Loading weights in place (`load_state_dict`) is
    fine; the model must be on its device, in its dtype, before the optimizer is made.

    The rate is the 0-d tensor `param_groups[0]["lr"]`, to be filled in place (`set_learning_rate`), and the number of
    updates t the 0-d fp64 tensor `param_groups[0]["update"]`; both live on the parameters' device, so that nothing is
    read back. A parameter that has never had a gradient is left alone. t counts the optimizer's updates, not the
    parameter's: a parameter that gets its first gradient late is bias-corrected as if its earlier gradients had been 0.

    Args:
        parameters: of one device; they belong to this optimizer alone, which has a norm, a rate and a count.
        lr: learning rate until the first `set_learning_rate`.
        betas: decay of the two moments, each 0 to below 1.
        eps: added to sqrt(v), > 0.
        weight_decay: decoupled, 0 or more.
        backend: of `ops.clip_adam`: auto, triton or torch.
        world: processes whose gradients are added before they are clipped, all over the same parameters.

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
        world: World = ALONE,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam: betas = {betas}: expected two values from 0 to below 1")
        if lr < 0 or eps <= 0 or weight_decay < 0:
            raise ValueError(
                f"Adam: lr = {lr}, eps = {eps}, weight_decay = {weight_decay}: expected lr and weight_decay 0 or more, "
                "eps above 0"
            )
        self.backend, self.world = backend, world
        self._blocks: list[_Block] = []
        self._slots: dict[Tensor, _Slot] = {}
        # parameters in the buffers, and whether the rounded copy of each is current
        self._is_current: list[tuple[Tensor, Callable[[Tensor], bool]]] = []
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        if len(self.param_groups) > 1:
            raise ValueError(f"Adam: {len(self.param_groups)} groups of parameters: make an optimizer for each")
        devices = sorted({str(parameter.device) for parameter in self._parameters})
        if len(devices) > 1:
            raise ValueError(f"Adam: parameters on {' and '.join(devices)}: make an optimizer for each device")
        group, device = self.param_groups[0], self._parameters[0].device
        group["lr"] = torch.as_tensor(lr, dtype=torch.float64, device=device).clone()
        group["update"] = torch.zeros((), dtype=torch.float64, device=device)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        # moments that replaced others are copied into buffers at the next update
        self._blocks, self._slots, self._is_current = [], {}, []

    @property
    def _parameters(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def set_learning_rate(self, rate: float) -> None:
        """Fills the learning rate in place."""
        self.param_groups[0]["lr"].fill_(rate)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Fills the gradients with zeros, in place.

        Raises:
            ValueError: for set_to_none: the gradients are parts of a buffer.
        """
        if set_to_none:
            raise ValueError("Adam.zero_grad: set_to_none = True: gradients are parts of a buffer; leave it out")
        for block in self._blocks:
            block.gradients.zero_()
        for parameter in self._parameters:
            slot = self._slots.get(parameter)
            if parameter.grad is not None and (slot is None or parameter.grad is not slot.gradient):
                parameter.grad.zero_()

    # mypy: torch's optimizers also accept a closure and return its loss
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates without clipping; else as `clip_and_step`.

        Args:
            closure: not supported; for the signature of torch's optimizers.

        Raises:
            ValueError: with a closure.
        """
        if closure is not None:
            raise ValueError("Adam.step: closure: expected None; call backward before the step")
        update = self.param_groups[0]["update"]
        self.clip_and_step(math.inf, torch.ones((), dtype=torch.bool, device=update.device))

    @torch.no_grad()
    def clip_and_step(self, clip_norm: float, is_finite: Tensor, loss: Tensor | None = None) -> Tensor:
        """Adds up the processes' gradients, clips them by their global norm, updates, and leaves gradients of 0.

        Args:
            clip_norm: largest L2 norm of all this optimizer's gradients, > 0.
            is_finite: [] bool on the parameters' device. Set to False if norm or loss is not finite. While it is False
                the call changes no parameter, moment or count, whatever the gradients contain (NaN included).
            loss: [] whose gradients these are; None for no loss to look at.
        Returns:
            [] norm before clipping; 0 while no parameter has had a gradient.
        Raises:
            ValueError: for a model that was moved or converted, or whose gradients were set to None.
        """
        self._take_in()
        for block in self._blocks:
            self.world.sum_(block.gradients)
        group = self.param_groups[0]
        if not self._blocks:
            if loss is not None:
                is_finite.logical_and_(torch.isfinite(loss))
            return torch.zeros((), dtype=self._parameters[0].dtype, device=is_finite.device)
        beta1, beta2 = group["betas"]
        constants = AdamConstants(clip_norm, beta1, beta2, group["eps"], group["weight_decay"])
        buffers = [AdamBuffers(b.parameters, b.gradients, b.first, b.second, b.weights.rounded) for b in self._blocks]
        state = group["lr"], group["update"], is_finite
        return clip_adam(buffers, *state, constants, loss, backend=self.backend)

    def refresh(self) -> None:
        """Rounds anew what was changed since by others, for a recorded step, which reads the rounded copies."""
        refresh([parameter for parameter, is_current in self._is_current if not is_current(parameter)])

    def memory(self) -> Iterator[Tensor]:
        """All tensors but the parameters that an update reads or changes, for what relies on where they lie."""
        group = self.param_groups[0]
        yield from (group["lr"], group["update"])
        for block in self._blocks:
            yield from (block.parameters, block.gradients, block.first, block.second)
            if block.weights.rounded is not None:
                yield block.weights.rounded

    def _take_in(self) -> None:
        """Checks the parameters in the buffers, and moves those with a first gradient into them."""
        self._agree_on_new()
        new: dict[torch.dtype, list[Tensor]] = {}
        for index, parameter in enumerate(self._parameters):
            slot = self._slots.get(parameter)
            if slot is None:
                if parameter.grad is not None:
                    new.setdefault(parameter.dtype, []).append(parameter)
            elif memory_of(parameter) != slot.memory:
                raise ValueError(
                    f"Adam: parameter {index} {list(parameter.shape)} was moved or converted after its first update; "
                    "make the optimizer after the model is on its device"
                )
            elif parameter.grad is not slot.gradient:
                self._put_back(index, parameter, slot)
        for parameters in new.values():
            self._add_block(parameters)

    def _agree_on_new(self) -> None:
        """Gives a gradient of 0 to parameters that got their first one elsewhere, so that all have the same buffers."""
        waiting = [parameter for parameter in self._parameters if parameter not in self._slots]
        if self.world.size == 1 or not waiting:
            return
        has_gradient = self.world.any_of([parameter.grad is not None for parameter in waiting])
        for parameter, has in zip(waiting, has_gradient, strict=True):
            if has and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _put_back(self, index: int, parameter: Tensor, slot: _Slot) -> None:
        """Copies a gradient that was assigned to a parameter into the buffer."""
        if parameter.grad is None:
            raise ValueError(
                f"Adam: the gradient of parameter {index} {list(parameter.shape)} was set to None; gradients are "
                "parts of a buffer, clear them with the optimizer's zero_grad()"
            )
        slot.gradient.copy_(parameter.grad)
        parameter.grad = slot.gradient

    def _add_block(self, parameters: list[Tensor]) -> None:
        """Moves parameters of one dtype, their gradients and what moments they have into buffers."""
        device = self.param_groups[0]["update"].device
        begins, total = [], 0
        for parameter in parameters:
            if parameter.device != device:
                raise ValueError(
                    f"Adam: a parameter is on {parameter.device}, the optimizer was made on {device}; make it after "
                    "the model is on its device"
                )
            begins.append(total)
            # a multiple of 64 elements, because kernels assume addresses that are multiples of 16 bytes
            total += room_of(parameter)
        rounded = copies(parameters)
        buffers = [torch.zeros(total, dtype=parameters[0].dtype, device=device) for _ in range(4)]
        block = _Block(buffers[0], buffers[1], buffers[2], buffers[3], FlatWeights(buffers[0]))
        for parameter, begin in zip(parameters, begins, strict=True):
            part = slice(begin, begin + parameter.numel())
            value, gradient, first, second = (
                buffer[part].view(parameter.shape)
                for buffer in (block.parameters, block.gradients, block.first, block.second)
            )
            value.copy_(parameter)
            if parameter.grad is not None:
                gradient.copy_(parameter.grad)
            parameter.data, parameter.grad = value, gradient
            state = self.state[parameter]
            for moment, buffer in zip(MOMENTS, (first, second), strict=True):
                if moment in state:
                    buffer.copy_(state[moment])
                state[moment] = buffer
            self._slots[parameter] = _Slot(memory_of(parameter), gradient)
            self._is_current.append((parameter, block.weights.add(parameter, begin, gradient)))
        if rounded:
            # products ask for copies again, and the first update then needs no compilation of its own
            block.weights.rounded = block.parameters.to(rounded[0].dtype)
        self._blocks.append(block)
