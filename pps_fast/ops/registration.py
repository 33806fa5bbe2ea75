"""What all ops with kernels share: import of a kernel file, registration with torch, and sentences of refusal."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.ops.dispatch import Op

FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# one program holds all pairs of a sample's components
_MAX_COMPONENTS = 64
# what every kernel is compiled for and keeps within (tests/kernels)
LEAST_CAPABILITY, SHARED_BYTES = (8, 0), 99 << 10
_NO_TRITON = "triton is not installed"

_library = torch.library.Library("pps_fast", "FRAGMENT")


def load_kernel(name: str) -> ModuleType | None:
    """Returns the file `pps_fast.kernels.<name>`, or None where Triton is not installed."""
    try:
        return importlib.import_module(f"pps_fast.kernels.{name}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return None


_launch = load_kernel("launch")


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on CPU tensors."""
    return _launch is not None and _launch.is_interpreted()


def register(schema: str, implementation: Callable[..., Any] | None, fake: Callable[..., Any]) -> None:
    """Registers an operator `torch.ops.pps_fast.<name>` for CPU and CUDA.

    Args:
        schema: "name(Tensor x, ...) -> Tensor", in torch's language of schemas.
        implementation: on tensors, without autograd; None leaves the operator without one.
        fake: makes results of the right shapes, dtypes and strides, for torch.compile.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    if implementation is not None:
        for device in ("CPU", "CUDA"):
            _library.impl(name, implementation, device)
    torch.library.register_fake(f"pps_fast::{name}", fake, lib=_library)


def fused_op(
    name: str,
    fused: Callable[..., Any],
    unsupported: Callable[..., list[str]],
    equation: Callable[..., Any] | None = None,
) -> Op:
    """Returns the op of an equation and its kernel, which share name and signature; the one of the paper by default."""
    return Op(
        name,
        torch=equation or getattr(equations, name),
        triton=fused,
        unsupported=unsupported if _launch is not None else _without_triton,
        is_interpreted=is_interpreted(),
    )


def _without_triton(*args: Any, **kwargs: Any) -> list[str]:
    return [_NO_TRITON]


# torch.compile cannot trace these questions, whose answers do not change
@torch.compiler.assume_constant_result
def _device_lacks(index: int) -> list[str]:
    if not torch.cuda.is_available():
        return []
    known = torch.cuda.get_device_properties(index)
    return chip_reasons(known.name, (known.major, known.minor), known.shared_memory_per_block_optin)


def chip_reasons(name: str, capability: tuple[int, int], shared_bytes: int) -> list[str]:
    """Says what a GPU lacks that the kernels' tiles were chosen for, which are compiled for sm_80 and newer."""
    reasons = []
    if capability < LEAST_CAPABILITY:
        found, least = (".".join(map(str, version)) for version in (capability, LEAST_CAPABILITY))
        reasons.append(f"{name} has compute capability {found}; the kernels are made for {least} and newer")
    if shared_bytes < SHARED_BYTES:
        reasons.append(
            f"{name} gives a program {shared_bytes >> 10} KiB of shared memory; the kernels need up to "
            f"{SHARED_BYTES >> 10} KiB"
        )
    return reasons


def device_reasons(**tensors: Tensor | None) -> list[str]:
    """Says what keeps a kernel from reading these tensors where they are; the first is the one computed on."""
    given = {name: x for name, x in tensors.items() if x is not None}
    name, first = next(iter(given.items()))
    reasons = []
    if first.is_cuda:
        reasons += _device_lacks(first.device.index or 0)
    elif not is_interpreted():
        reasons.append(f"{name} is on {first.device}; the kernel needs a CUDA device")
    for other, x in given.items():
        if x.device != first.device:
            reasons.append(f"{other} is on {x.device}, {name} on {first.device}; the kernel needs one device")
    return reasons


def dtype_reasons(**tensors: Tensor | None) -> list[str]:
    """Says which of these tensors have a dtype that a kernel does not read."""
    return [
        f"{name} is {x.dtype}; the kernel computes in float32"
        for name, x in tensors.items()
        if x is not None and x.dtype not in FUSED_DTYPES
    ]


def shape_reasons(num_dims: int, **tensors: Tensor) -> list[str]:
    """Says which of these tensors are empty or have another number of dimensions."""
    return [
        f"{name} has shape {tuple(x.shape)}; the kernel needs {num_dims} dimensions, none of them empty"
        for name, x in tensors.items()
        if x.dim() != num_dims or 0 in x.shape
    ]


def size_reasons(name: str, what: str, size: int, limit: int) -> list[str]:
    """Says that a size lies outside what one program of a kernel holds."""
    return [] if 1 <= size <= limit else [f"{name} has {size} {what}; the kernel takes 1 to {limit}"]


def group_reasons(group: Tensor, name: str, x: Tensor, axis: int = 1) -> list[str]:
    """Says that `group` does not tell the group of each entry of x along an axis."""
    if group.dim() == 1 and group.numel() == x.shape[axis] and not group.is_floating_point():
        return []
    return [
        f"group is {group.dtype} of shape {tuple(group.shape)}; the kernel needs an integer for each of the "
        f"{x.shape[axis]} entries of {name} along its axis {axis}"
    ]


def component_reasons(group: Tensor, num_groups: int, num_dims: int, **tensors: Tensor) -> list[str]:
    """Says what is common to ops of components: devices, dtypes and shapes of tensors [B, E, ...], and their groups."""
    reasons = device_reasons(**tensors, group=group) + dtype_reasons(**tensors) + shape_reasons(num_dims, **tensors)
    if num_groups < 1:
        reasons.append(f"num_groups = {num_groups}; the kernel needs at least 1")
    name, first = next(iter(tensors.items()))
    if any(x.shape[:2] != first.shape[:2] for x in tensors.values()):
        listed = ", ".join(f"{other} has shape {tuple(x.shape)}" for other, x in tensors.items())
        return [*reasons, f"{listed}; the kernel needs one number of samples and components"]
    if first.dim() == num_dims:
        reasons += size_reasons(name, "components", first.shape[1], _MAX_COMPONENTS) + group_reasons(group, name, first)
    return reasons
