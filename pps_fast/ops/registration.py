"""Helpers of all ops with kernels: import of a kernel file, registration with torch, reasons for refusing a call."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pps_fast.ops.contract import FLOATING, Axes, Contract, Rule
from pps_fast.ops.dispatch import BackendError, Op, P, R, wants_kernels

FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# what every kernel is compiled for and keeps within (tests/kernels)
LEAST_CAPABILITY, SHARED_BYTES = (8, 0), 99 << 10
_NO_TRITON = "triton is not installed"

_library = torch.library.Library("pps_fast", "FRAGMENT")
# whether operators called with fake tensors run their launchers (see `ops.launches`)
is_recording = False


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


def register(
    launcher: Callable[..., Any] | None,
    fake: Callable[..., Any],
    mutates: Iterable[str] = (),
    has_kernel: bool = True,
) -> None:
    """Registers a launcher as the operator `torch.ops.pps_fast.<its name>` for CPU and CUDA.

    Its schema is read from its annotations. Where Triton is not installed there is no launcher, and no operator, as
    nothing could run it.

    Args:
        launcher: on tensors, without autograd; or None.
        fake: makes results of the right shapes, dtypes and strides, for torch.compile.
        mutates: arguments that are written to.
        has_kernel: whether the launcher launches kernels of ours, which `ops.launches` records; else it calls torch.
    """
    if launcher is None:
        return
    name = launcher.__name__
    schema = torch.library.infer_schema(launcher, mutates_args=tuple(mutates))
    _library.define(name + schema)
    for device in ("CPU", "CUDA"):
        _library.impl(name, launcher, device)
    launch = launcher

    def fake_or_launch(*args: Any, **kwargs: Any) -> Any:
        return (launch if is_recording and has_kernel else fake)(*args, **kwargs)

    torch.library.register_fake(f"pps_fast::{name}", fake_or_launch, lib=_library)


def launcher_of(kernel: ModuleType | None, name: str) -> Callable[..., Any] | None:
    """Returns a launcher of a kernel file, None where Triton is not installed."""
    return None if kernel is None else getattr(kernel, name)


def fused_op(
    equation: Callable[P, R],
    fused: Callable[..., R],
    contract: Contract,
    limits: Callable[..., list[str]],
    *,
    name: str | None = None,
    rule: Rule | None = None,
    shortcut: Callable[..., R | None] | None = None,
) -> Op[P, R]:
    """Returns the op of an equation and its kernel, which share the signature.

    Args:
        equation: gives its name to the op.
        fused: runs the kernel.
        contract: what both expect of their arguments.
        limits: takes the arguments by name and says which sizes the kernel does not take, of arguments that keep the
            contract.
        name: of the op, if not the equation's.
        rule: a check beyond the contract, for both; see `Op`.
        shortcut: see `Op`.
    """
    return Op(
        name or equation.__name__,
        torch=equation,
        triton=fused,
        unsupported=_without_triton if _launch is None else _unsupported(contract, limits),
        is_interpreted=is_interpreted(),
        contract=contract,
        rule=rule,
        shortcut=shortcut,
    )


def _unsupported(contract: Contract, limits: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Returns the function that says why a kernel cannot serve arguments that keep the contract."""
    tensors = {name: expected for name, expected in contract.items() if isinstance(expected, Axes)}
    floating = [name for name, expected in tensors.items() if expected.dtypes == FLOATING]

    def unsupported(**arguments: Any) -> list[str]:
        named = {name: arguments[name] for name in tensors if arguments.get(name) is not None}
        reasons = device_reasons(*next(iter(named.items())))
        # elsewhere nothing else matters, and every step on a CPU asks
        if reasons:
            return reasons
        reasons = dtype_reasons({name: named[name] for name in floating if name in named})
        return reasons + (empty_reasons(named) or limits(**arguments))

    return unsupported


def _without_triton(**_: Any) -> list[str]:
    return [_NO_TRITON]


def constant_result(function: Callable[P, R]) -> Callable[P, R]:
    """Marks a function as `torch.compiler.assume_constant_result` does, which imports the compiler in every program."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


# torch.compile cannot trace device queries; their result is constant
@constant_result
def _device_lacks(index: int) -> list[str]:
    if not torch.cuda.is_available():
        return []
    known = torch.cuda.get_device_properties(index)
    # torch's stubs do not know the attribute
    shared_bytes: int = getattr(known, "shared_memory_per_block_optin")  # noqa: B009
    return chip_reasons(known.name, (known.major, known.minor), shared_bytes)


def chip_reasons(name: str, capability: tuple[int, int], shared_bytes: int) -> list[str]:
    """Returns why a GPU cannot run the kernels: an older chip than sm_80, or too little shared memory."""
    reasons = []
    if capability < LEAST_CAPABILITY:
        capability_text, least = (".".join(map(str, version)) for version in (capability, LEAST_CAPABILITY))
        reasons.append(f"{name} has compute capability {capability_text}; the kernels are made for {least} and newer")
    if shared_bytes < SHARED_BYTES:
        reasons.append(
            f"{name} gives a program {shared_bytes >> 10} KiB of shared memory; the kernels need up to "
            f"{SHARED_BYTES >> 10} KiB"
        )
    return reasons


def device_reasons(name: str, x: Tensor) -> list[str]:
    """Returns why no kernel can run on x: its device, or a transform of torch.func that is active."""
    # a kernel's gradient is an autograd function, which vmap and grad of torch.func do not see through
    if torch._C._are_functorch_transforms_active():
        return ["transforms of torch.func need backend='torch'"]
    if x.is_cuda:
        return _device_lacks(x.device.index or 0)
    return [] if is_interpreted() else [f"{name} is on {x.device}; the kernel needs a CUDA device"]


def dtype_reasons(tensors: dict[str, Tensor]) -> list[str]:
    """Returns a reason for each tensor whose dtype a kernel does not read."""
    return [
        f"{name} is {x.dtype}; the kernel computes in float32"
        for name, x in tensors.items()
        if x.dtype not in FUSED_DTYPES
    ]


def empty_reasons(tensors: dict[str, Tensor]) -> list[str]:
    """Says which of these tensors have no values."""
    return [
        f"{name} has shape {tuple(x.shape)}; the kernel takes no empty tensor"
        for name, x in tensors.items()
        if 0 in x.shape
    ]


def runs_kernels(x: Tensor, backend: str) -> bool:
    """Whether what is no op of its own runs kernels on x, silently: the other way computes the same."""
    if not wants_kernels(backend, is_interpreted()) or torch.compiler.is_compiling():
        return False
    # keys and counts, integers, are read as they are
    reasons = dtype_reasons({"x": x}) if x.is_floating_point() else []
    return not (device_reasons("x", x) or reasons or empty_reasons({"x": x}))


def size_reasons(name: str, what: str, size: int, limit: int) -> list[str]:
    """Says that a size lies outside what one program of a kernel holds."""
    return [] if 1 <= size <= limit else [f"{name} has {size} {what}; the kernel takes 1 to {limit}"]


def summed_dtype(*tensors: Tensor) -> torch.dtype:
    """Returns the dtype in which an equation sums products of these tensors; a GPU's autocast sums in fp32 at least."""
    dtype = tensors[0].dtype
    for x in tensors[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    if tensors[0].is_cuda and torch.is_autocast_enabled("cuda"):
        return torch.promote_types(dtype, torch.float32)
    return dtype


# --- derivatives ----------------------------------------------------------------------------------


def first_order_only(ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes the `backward` of an autograd function refuse to be differentiated again.

    Without it a second derivative would silently be 0. The function must save one of its results for the backward pass:
    this result links the returned gradients to all inputs.

    Args:
        ops: names of the ops that the autograd function serves.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(backward)
        def guarded(ctx: Any, *grads: Tensor | None) -> Any:
            # off but for create_graph=True
            if not torch.is_grad_enabled():
                return backward(ctx, *grads)
            with torch.no_grad():
                results = backward(ctx, *grads)
            return _FirstOrderOnly.apply(ops, results, *grads, *ctx.saved_tensors)

        return guarded

    return decorate


class _FirstOrderOnly(torch.autograd.Function):
    """Passes gradients on as results of `sources`, which cannot be differentiated."""

    @staticmethod
    def forward(
        ctx: Any, ops: str, results: tuple[Tensor | None, ...], *sources: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.ops = ops
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise BackendError(f"{ctx.ops}: the kernel's gradient has no gradient of its own; use backend='torch'")
