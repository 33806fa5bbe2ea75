"""Who computes an op: the eager equation, torch.compile of it, our kernel, and for attention what torch offers.

A baseline that cannot serve is not left out: `Implementation.why_not` says why. What it needs beside the op's inputs (a
mask with the causal order folded in) is made by `prepare`, outside of what is timed, in the baseline's favor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.attention import additive_mask, flex_functions, for_each_mask
from benchmarks.cases import Inputs
from benchmarks.counts import PRODUCTS
from pps_fast.ops.dispatch import Op

CPU_COMPILER = "skipped on a CPU, where torch's compiler made the transformer's layers slower; --compile runs it"
NO_INTERPRETER = "the kernel needs a CUDA device; Triton's interpreter is never timed"


@dataclass(frozen=True)
class Implementation:
    """One implementation of an op.

    Attributes:
        name: in the rows.
        function: takes what `prepare` returns.
        prepare: from the op's inputs to its own; a gradient of more dimensions than the op's is summed by the check.
        why_not: the reason it does not run here; None if it does.
        is_compiled: whether the first calls compile.
    """

    name: str
    function: Callable[..., Any]
    prepare: Callable[[Inputs], Inputs] = dict
    why_not: str | None = None
    is_compiled: bool = False


def implementations_of(op: Op, inputs: Inputs, use_compile: bool) -> list[Implementation]:
    """Returns our implementations and all baselines for an op on these inputs.

    Args:
        use_compile: also torch.compile where it is skipped by default, on a CPU.
    """
    device = next(x for x in inputs.values() if isinstance(x, Tensor)).device
    equation = op.__wrapped__
    no_compiler = None if use_compile or device.type == "cuda" else CPU_COMPILER
    # the compiler is not even loaded where it is not used
    compiled = equation if no_compiler else torch.compile(equation, dynamic=False)
    implementations = [
        Implementation("equation", equation),
        Implementation("triton", partial(op, backend="triton"), why_not=_why_no_kernel(op, inputs, device)),
        Implementation("compile", compiled, why_not=no_compiler, is_compiled=True),
    ]
    return implementations + (_attentions(op.name, device) if op.name in PRODUCTS else [])


def _why_no_kernel(op: Op, inputs: Inputs, device: torch.device) -> str | None:
    if device.type != "cuda" or op.is_interpreted:
        return NO_INTERPRETER
    return "; ".join(op.reasons(**inputs)) or None


def _attentions(op: str, device: torch.device) -> list[Implementation]:
    only_cuda = None if device.type == "cuda" else "exists for CUDA devices only"
    efficient = partial(_sdpa, [SDPBackend.EFFICIENT_ATTENTION])
    return [
        # whatever torch chooses
        Implementation("sdpa", partial(_sdpa, []), prepare=with_mask),
        Implementation("sdpa_mem_efficient", efficient, prepare=with_mask, why_not=only_cuda),
        _flex(op, device),
    ]


def _flex(op: str, device: torch.device) -> Implementation:
    function, why_not = dict, None if device.type == "cuda" else "has no backward pass on a CPU"
    try:
        if why_not is None:
            function = torch.compile(flex_functions()[op], dynamic=False)
    except ImportError as error:
        why_not = f"not in this torch: {error}"
    return Implementation("flex_attention", function, prepare=without_validity, why_not=why_not, is_compiled=True)


def _sdpa(
    backends: list[SDPBackend],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    is_causal: bool,
    num_masks: int | None,
) -> Tensor:
    """`masked_attention` with a mask that is made already; with `num_masks` `shared_attention`."""
    tensors = (query, key, value)
    if num_masks is not None:
        tensors = tuple(for_each_mask(x, num_masks) for x in tensors)
    with sdpa_kernel(backends) if backends else nullcontext():
        attended = F.scaled_dot_product_attention(*tensors, attn_mask=key_bias, is_causal=is_causal)
    return attended if num_masks is None else attended.unflatten(0, (-1, num_masks))


def without_validity(inputs: Inputs) -> Inputs:
    """Returns the inputs with key_valid None where no key is padding."""
    valid = inputs["key_valid"]
    return {**inputs, "key_valid": None if valid is None or valid.all() else valid}


def with_mask(inputs: Inputs) -> Inputs:
    """Returns the inputs of `_sdpa`: one additive mask as key_bias, a leaf if the op's bias is one.

    Where there is nothing but a causal order to say, it stays a flag, which admits flash attention.
    """
    query, key, bias, causal = (inputs[name] for name in ("query", "key", "key_bias", "causal"))
    valid = without_validity(inputs)["key_valid"]
    num_masks = bias.shape[1] if bias is not None and bias.dim() == 3 else None
    operands = {"query": query, "key": key, "value": inputs["value"], "num_masks": num_masks}
    if bias is None and valid is None:
        return {**operands, "key_bias": None, "is_causal": causal}
    if num_masks is not None and valid is not None:
        valid = for_each_mask(valid, num_masks)
    flat = None if bias is None else bias.detach().flatten(0, -2)
    mask = additive_mask(query, key, flat, valid, causal)
    return {**operands, "key_bias": mask.requires_grad_(bias is not None and bias.requires_grad), "is_causal": False}
