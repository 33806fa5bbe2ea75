"""Weights as the products of the fused path read them, and gradients where it accumulates them.

A product in half precision reads rounded weights. They are rounded once per update and not once per use: a copy is kept
beside each parameter and made anew after the parameter changed. An optimizer that keeps its parameters in flat
buffers (`FlatWeights`) gets one flat copy, which its update writes, and lends its buffer of gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# rows that a copy's rows are filled up to a multiple of, so that products read and write whole lines of memory
_ROWS = 64


def memory_of(x: Tensor) -> int:
    """Identifies the memory that a tensor is part of; of fake tensors too, which have no address."""
    return x.untyped_storage()._cdata


def room_of(parameter: Tensor) -> int:
    """Returns how many elements a parameter takes with rows of zeros behind its last, up to a multiple of 64."""
    num_rows, *others = parameter.shape or (1,)
    return -(-num_rows // _ROWS) * _ROWS * math.prod(others)


@dataclass
class FlatWeights:
    """Parameters of one dtype in a flat buffer, [n].

    Attributes:
        values: the parameters.
        rounded: their rounded copy, which each update must write; None until a product asks for it.
    """

    values: Tensor
    rounded: Tensor | None = None

    def add(self, parameter: Tensor, begin: int, gradient: Tensor) -> Callable[[Tensor], bool]:
        """Registers a parameter whose memory is a part of the buffer.

        Args:
            begin: index of its first element; behind its last are zeros, `room_of` elements in all.
            gradient: contiguous buffer of its gradient, to which the backward pass may add.
        Returns:
            What tells whether the parameter's rounded copy, if it has one, is current.
        """
        slot = _SLOTS[parameter] = _Slot(self, begin, gradient, parameter)
        return slot.is_current


class _Slot:
    """A parameter's rounded copy, and whether it is current.

    In-place changes of a parameter count up its version. An update of the flat buffer does not: it writes the copy.
    """

    # the copy's memory, with rows of zeros behind those of the parameter
    room: Tensor

    def __init__(self, flat: FlatWeights | None, begin: int, gradient: Tensor | None, parameter: Tensor) -> None:
        self.flat, self.begin, self.gradient = flat, begin, gradient
        self.memory, self.version = memory_of(parameter), parameter._version
        self.copy: Tensor | None = None

    def is_current(self, parameter: Tensor) -> bool:
        return self.copy is None or self.version == parameter._version

    def rounded(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        if self.copy is None or self.copy.dtype != dtype:
            # no inference tensor, even if an evaluation makes it: later updates of a training write it
            with torch.inference_mode(False), torch.no_grad():
                self.copy = self._new_copy(parameter, dtype)
        elif self.version != parameter._version:
            self.copy.copy_(parameter)
        self.version = parameter._version
        return self.copy

    def _new_copy(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        size, num_rows = room_of(parameter), len(parameter) if parameter.dim() else 1
        if self.flat is None:
            room = torch.zeros(size, dtype=dtype, device=parameter.device)
        else:
            if self.flat.rounded is None or self.flat.rounded.dtype != dtype:
                self.flat.rounded = self.flat.values.to(dtype)
            room = self.flat.rounded[self.begin : self.begin + size]
        self.room = room.view(-1, *parameter.shape[1:])
        # the flat copy may be older than the parameter's last change
        return self.room[:num_rows].view(parameter.shape).copy_(parameter)


# values are no reason to keep a parameter, which is why a slot does not refer to its own
_SLOTS: Any = WeakTensorKeyDictionary()


def _slot_of(parameter: Tensor) -> _Slot | None:
    """Returns the slot of a parameter, None if it has none or was moved since."""
    slot = _SLOTS.get(parameter)
    return slot if slot is not None and slot.memory == memory_of(parameter) else None


@torch.no_grad()
def rounded(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a parameter's values in a dtype, detached: the parameter itself, or its current copy."""
    if parameter.dtype == dtype:
        return parameter.detach()
    if parameter.is_inference():
        # such a tensor does not tell whether it changed
        return parameter.to(dtype)
    return _rounding_slot(parameter).rounded(parameter, dtype)


@torch.no_grad()
def padded(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns `rounded` with rows of zeros behind the last, up to a multiple of 64; as it is where nothing is rounded.

    A product with it writes rows that begin at multiples of 128 bytes, the first of which are the layer's result.
    """
    if parameter.dtype == dtype or parameter.is_inference():
        return rounded(parameter, dtype)
    slot = _rounding_slot(parameter)
    slot.rounded(parameter, dtype)
    return slot.room


def _rounding_slot(parameter: Tensor) -> _Slot:
    """Returns the slot of a parameter, a new one if it has none."""
    slot = _slot_of(parameter)
    if slot is None:
        slot = _SLOTS[parameter] = _Slot(None, 0, None, parameter)
    return slot


def refresh(parameters: list[Tensor]) -> None:
    """Makes the copies of parameters current, for a recorded step, which does not ask for them."""
    for parameter in parameters:
        slot = _SLOTS.get(parameter)
        if slot is not None and slot.copy is not None and slot.version != parameter._version:
            rounded(parameter, slot.copy.dtype)


def copies(parameters: list[Tensor]) -> list[Tensor]:
    """Returns the copies that parameters have, for a recorded step, which reads them where they lie."""
    slots = map(_slot_of, parameters)
    return [slot.copy for slot in slots if slot is not None and slot.copy is not None]


def gradient_of(parameter: Tensor) -> Tensor | None:
    """Returns the buffer that a parameter's gradient is accumulated in, None where autograd accumulates it."""
    slot = _slot_of(parameter)
    return None if slot is None or slot.gradient is not parameter.grad else slot.gradient
