"""Contracts of ops: the ranks, sizes, dtypes and device that every backend expects of the arguments.

A contract is data: `{"masks": floats("B E T"), "group": integers("E"), "num_groups": at_least(0)}`. A name of an axis
stands for one size in all tensors of a call. A check looks at shapes, dtypes and devices and never at values, so that
it waits for no device and can be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

# axes of a tensor that may have any, as long as all tensors of a call with them have the same
ANY_AXES = ("...",)
FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGER = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Axes(NamedTuple):
    """Expectation of a tensor: its axes by name, and the dtypes it may have."""

    names: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    kind: str


class Least(NamedTuple):
    """The smallest value that a whole number may have."""

    value: int


Contract = Mapping[str, Axes | Least]
# takes the arguments of a call by name, returns a sentence about what is wrong with them, or None
Rule = Callable[[Mapping[str, Any]], str | None]


def floats(axes: str) -> Axes:
    """Returns the expectation of a floating-point tensor with axes such as "B E T"."""
    return Axes(tuple(axes.split()), FLOATING, "a floating dtype")


def integers(axes: str) -> Axes:
    """Returns the expectation of a tensor of whole numbers."""
    return Axes(tuple(axes.split()), INTEGER, "an integer dtype")


def exactly(dtype: torch.dtype, axes: str = "") -> Axes:
    """Returns the expectation of a tensor of this dtype; without axes it is a single number."""
    return Axes(tuple(axes.split()), (dtype,), str(dtype))


def booleans(axes: str) -> Axes:
    """Returns the expectation of a mask."""
    return exactly(torch.bool, axes)


def at_least(value: int) -> Least:
    """Returns the expectation of a whole number."""
    return Least(value)


def check(op: str, contract: Contract, optional: frozenset[str], arguments: Mapping[str, Any]) -> None:
    """Compares the arguments of a call with a contract.

    Args:
        op: its name, which begins the message.
        optional: arguments that may be None.
        arguments: by name; one that is missing has its default.
    Raises:
        ValueError: naming the first argument that differs, what was expected of it, and what it is.
    """
    sizes: dict[str, int] = {}
    shapes: dict[tuple[str, ...], tuple[int, ...]] = {}
    first: Tensor | None = None
    first_name = ""
    for name, expected in contract.items():
        x: Any = arguments.get(name)
        if x is None and (name in optional or name not in arguments):
            continue
        if isinstance(expected, Least):
            if x < expected.value:
                raise ValueError(f"{op}: {name} = {x}, expected {expected.value} or more")
            continue
        if not isinstance(x, Tensor):
            raise ValueError(f"{op}: {name} is {type(x).__name__}, expected a tensor {_listed(expected.names)}")
        shape = x.shape
        if not _has_axes(shape, expected.names, shapes, sizes):
            raise ValueError(f"{op}: {name} has shape {tuple(shape)}, expected {_known(expected.names, shapes)}")
        if x.dtype not in expected.dtypes:
            raise ValueError(f"{op}: {name} is {x.dtype}, expected {expected.kind}")
        if first is None:
            first, first_name = x, name
        elif x.device != first.device:
            raise ValueError(f"{op}: {name} is on {x.device}, {first_name} on {first.device}; expected one device")


def _has_axes(
    shape: tuple[int, ...],
    names: tuple[str, ...],
    shapes: dict[tuple[str, ...], tuple[int, ...]],
    sizes: dict[str, int],
) -> bool:
    """Whether a tensor has these axes, of the sizes known so far; adds those that are new."""
    # most tensors have the axes of an earlier one
    if names in shapes:
        return shape == shapes[names]
    if names != ANY_AXES:
        if len(shape) != len(names):
            return False
        for name, size in zip(names, shape, strict=False):
            if name not in sizes:
                sizes[name] = size
            elif sizes[name] != size:
                return False
    shapes[names] = shape
    return True


def _listed(names: tuple[str, ...]) -> str:
    """Returns axes as in docstrings: "[B, E, T]"."""
    return f"[{', '.join(names)}]"


def _known(names: tuple[str, ...], shapes: dict[tuple[str, ...], tuple[int, ...]]) -> str:
    """Returns axes as in docstrings, with the sizes known from earlier tensors: "[B, E] with B = 2"."""
    if names == ANY_AXES:
        return str(tuple(shapes[names]))
    sizes = {axis: size for axes, shape in shapes.items() for axis, size in zip(axes, shape, strict=False)}
    known = ", ".join(f"{axis} = {sizes[axis]}" for axis in names if axis in sizes)
    return f"{_listed(names)} with {known}" if known else _listed(names)
