"""Clipping by the global norm and Adam as published, over flat buffers and in place: not an equation of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pps_fast.ops.contract import booleans, exactly, floats
from pps_fast.ops.registration import fused_op, launcher_of, load_kernel, register

kernel = load_kernel("clip_adam")

# values worked on at once on a CPU, so that they stay in its cache
_CHUNK = 1 << 18
# integers of a floating dtype's size in bytes
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# as in torch.nn.utils.clip_grad_norm_
_CLIP_EPS = 1e-6


class AdamConstants(NamedTuple):
    """Constants of the update, the same in every step.

    Attributes:
        clip_norm: largest global L2 norm, > 0; infinite for no clipping.
        beta1, beta2: decay of the moments, 0 to below 1.
        eps: added to sqrt(v) before the bias correction, > 0.
        weight_decay: decoupled, 0 or more.
    """

    clip_norm: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class AdamBuffers(NamedTuple):
    """Flat buffers of some parameters, contiguous [n] of one size, device and dtype, all written to.

    Attributes:
        parameters, gradients: p and g.
        first, second: moments m and v.
        rounded: p in another dtype, None for no such copy.
    """

    parameters: Tensor
    gradients: Tensor
    first: Tensor
    second: Tensor
    rounded: Tensor | None = None


def _chunks(*buffers: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Splits flat buffers into chunks that fit into the cache of a CPU; a GPU takes each buffer whole."""
    size = _CHUNK if buffers[0].device.type == "cpu" else buffers[0].numel()
    return zip(*(buffer.split(size) for buffer in buffers), strict=True)


def _global_norm(buffers: list[AdamBuffers]) -> Tensor:
    """[] L2 norm of all gradients, in the widest of their dtypes."""
    norms = [torch.linalg.vector_norm(part) for of in buffers for (part,) in _chunks(of.gradients)]
    wide = max((norm.dtype for norm in norms), key=lambda dtype: dtype.itemsize)
    return torch.linalg.vector_norm(torch.stack([norm.to(wide) for norm in norms]))


def _clip_adam(
    buffers: list[AdamBuffers],
    rate: Tensor,
    update: Tensor,
    is_finite: Tensor,
    constants: AdamConstants,
    loss: Tensor | None = None,
) -> Tensor:
    """Clips the gradients and updates parameters and moments in place, unless a gradient or the loss was not finite.

    With h = g min(1, clip_norm / (norm + 1e-6)), after t updates:

        m = beta1 m + (1 - beta1) h,   v = beta2 v + (1 - beta2) h^2
        p = p (1 - rate weight_decay) - rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)

    `is_finite` is set to False if the norm or the loss is not finite. While it is False, parameters, moments and count
    do not change, whatever the gradients contain (NaN included). The gradients are 0 afterwards, and the host reads
    nothing.

    Args:
        buffers: of all parameters, which share the norm.
        rate: [] fp64 learning rate.
        update: [] fp64 t, counted up here.
        is_finite: [] bool, whether to update; set to False in place if the norm or the loss is not finite.
        constants: all else.
        loss: [] whose gradients these are; None for no loss to look at.
    Returns:
        [] norm before clipping, in the widest dtype of the gradients.
    """
    norm = _global_norm(buffers)
    for value in (norm,) if loss is None else (norm, loss):
        is_finite.logical_and_(torch.isfinite(value))
    update.add_(is_finite)
    factors = _factors(norm, rate, update, is_finite, constants)
    for of in buffers:
        _update_all(of, is_finite, factors, constants)
    return norm


def _factors(
    norm: Tensor, rate: Tensor, update: Tensor, is_finite: Tensor, constants: AdamConstants
) -> dict[str, Tensor]:
    """Returns the scalar factors of the update, [] each; those of a refused update change nothing."""
    # before the first update the correction would be 0 / 0
    count, one = update.clamp(min=1), torch.ones_like(rate)
    correction = torch.sqrt(1 - constants.beta2**count) / (1 - constants.beta1**count)
    return {
        "scale": (constants.clip_norm / (norm + _CLIP_EPS)).clamp(max=1),
        "keep1": torch.where(is_finite, constants.beta1 * one, one),
        "keep2": torch.where(is_finite, constants.beta2 * one, one),
        "decay": 1 - rate * is_finite * constants.weight_decay,
        "rate": rate * is_finite * correction,
    }


def _update_all(buffers: AdamBuffers, is_finite: Tensor, factors: dict[str, Tensor], constants: AdamConstants) -> None:
    """Updates the values of some buffers."""
    parameters, *others, rounded = buffers
    cast = {name: factor.to(parameters.dtype) for name, factor in factors.items()}
    scratch = torch.empty_like(parameters[:_CHUNK] if parameters.device.type == "cpu" else parameters)
    for p, g, m, v in _chunks(parameters, *others):
        _update(p, g, m, v, scratch[: len(p)], is_finite, cast, constants)
    if rounded is not None:
        rounded.copy_(parameters)


def _update(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    scratch: Tensor,
    is_finite: Tensor,
    factors: dict[str, Tensor],
    constants: AdamConstants,
) -> None:
    """Updates [n] values."""
    g.mul_(factors["scale"])
    # 0 * NaN is NaN, so the bits of a refused gradient are scaled; torch.where would take ten times as long on a CPU
    g.view(_BITS[g.dtype.itemsize]).mul_(is_finite)
    m.mul_(factors["keep1"]).add_(g, alpha=1 - constants.beta1)
    v.mul_(factors["keep2"]).addcmul_(g, g, value=1 - constants.beta2)
    if constants.weight_decay:
        p.mul_(factors["decay"])
    torch.sqrt(v, out=scratch).add_(constants.eps)
    torch.div(m, scratch, out=scratch).mul_(factors["rate"])
    p.sub_(scratch)
    g.zero_()


def _fake(buffers: list[Tensor], *others: Any) -> Tensor:
    return buffers[0].new_empty(())


register(launcher_of(kernel, "clip_adam"), _fake, mutates=("buffers", "rounded", "update", "is_finite"))


def _differing(arguments: Mapping[str, Any]) -> str | None:
    """Returns a sentence about a buffer that is not flat, or that differs from the parameters beside it."""
    if not arguments["buffers"]:
        return "there are no buffers; expected one at least"
    device = arguments["rate"].device
    for index, buffers in enumerate(arguments["buffers"]):
        for kind, x in buffers._asdict().items():
            if x is None and kind == "rounded":
                continue
            problem = _problem(x, buffers.parameters, device, is_copy=kind == "rounded")
            if problem is not None:
                return f"buffers[{index}].{kind} is {problem}"
    return None


def _problem(x: Tensor, parameters: Tensor, device: torch.device, is_copy: bool) -> str | None:
    """Returns what a buffer is, and what it should be, unless it is; a rounded copy may have a dtype of its own."""
    shape = tuple(x.shape)
    if x.dim() != 1 or not x.is_floating_point() or not x.is_contiguous():
        layout = "" if x.is_contiguous() else ", not contiguous"
        return f"{x.dtype} of shape {shape}{layout}; expected contiguous [n] of a floating dtype"
    if x.device != device:
        return f"on {x.device}, rate on {device}; expected one device"
    if x.shape != parameters.shape or (x.dtype != parameters.dtype and not is_copy):
        beside, expected = tuple(parameters.shape), "one size" if is_copy else "one dtype and size"
        return f"{x.dtype} of shape {shape}, parameters {parameters.dtype} of shape {beside}; expected {expected}"
    return None


def _limits(buffers: list[AdamBuffers], **_: Any) -> list[str]:
    """Says which buffers the kernels cannot update."""
    return [
        f"buffers[{index}].parameters is {of.parameters.dtype} of {of.parameters.numel()} values; the kernel needs "
        "float32, one at least"
        for index, of in enumerate(buffers)
        if of.parameters.dtype != torch.float32 or of.parameters.numel() == 0
    ]


def _fused(
    buffers: list[AdamBuffers],
    rate: Tensor,
    update: Tensor,
    is_finite: Tensor,
    constants: AdamConstants,
    loss: Tensor | None = None,
) -> Tensor:
    flat, rounded = [x for of in buffers for x in of[:4]], [of.rounded for of in buffers]
    return torch.ops.pps_fast.clip_adam(flat, rounded, rate, update, is_finite, list(constants), loss)


clip_adam = fused_op(
    _clip_adam,
    _fused,
    {
        "rate": exactly(torch.float64),
        "update": exactly(torch.float64),
        "is_finite": booleans(""),
        "loss": floats(""),
    },
    _limits,
    name="clip_adam",
    rule=_differing,
)
