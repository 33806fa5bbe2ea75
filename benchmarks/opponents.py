"""Who computes an op: the eager equation, torch.compile of it, our kernel, and for attention what torch offers.

An opponent that cannot serve is not left out: `Opponent.why_not` says why. What it needs beside the op's inputs (a mask
with the causal order folded in) is made by `prepare`, outside of what is timed, in the opponent's favour.
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

from benchmarks.cases import Inputs
from benchmarks.counts import PRODUCTS
from pps_fast import equations
from pps_fast.equations import HIDDEN_SCORE
from pps_fast.ops.dispatch import Op

CPU_COMPILER = "skipped on a CPU, where torch's compiler made the transformer's layers slower; --compile runs it"
NO_INTERPRETER = "the kernel needs a CUDA device; Triton's interpreter is never timed"


@dataclass(frozen=True)
class Opponent:
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


def opponents_of(op: Op, inputs: Inputs, use_compile: bool) -> list[Opponent]:
    """Returns all opponents for an op on these inputs.

    Args:
        use_compile: also torch.compile where it is skipped by default, on a CPU.
    """
    device = next(x for x in inputs.values() if isinstance(x, Tensor)).device
    equation = getattr(equations, op.name)
    no_compiler = None if use_compile or device.type == "cuda" else CPU_COMPILER
    # the compiler is not even loaded where it is not used
    compiled = equation if no_compiler else _compiled(equation)
    found = [
        Opponent("equation", equation),
        Opponent("triton", partial(op, backend="triton"), why_not=_why_no_kernel(op, inputs, device)),
        Opponent("compile", compiled, why_not=no_compiler, is_compiled=True),
    ]
    return found + (_attentions(op.name, device) if op.name in PRODUCTS else [])


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # every case is compiled for its own shape; nothing happens before the first call
    return torch.compile(function, dynamic=False)


def _why_no_kernel(op: Op, inputs: Inputs, device: torch.device) -> str | None:
    if device.type != "cuda" or op.is_interpreted:
        return NO_INTERPRETER
    return "; ".join(op.reasons(**inputs)) or None


def _attentions(op: str, device: torch.device) -> list[Opponent]:
    only_cuda = None if device.type == "cuda" else "exists for CUDA devices only"
    attend = _by_sequence if op == "masked_attention" else _by_sample

    def sdpa(name: str, backends: list[SDPBackend], why_not: str | None = None) -> Opponent:
        return Opponent(name, partial(attend, partial(_sdpa, backends)), prepare=_with_mask, why_not=why_not)

    return [
        # whatever torch chooses
        sdpa("sdpa", []),
        sdpa("sdpa_mem_efficient", [SDPBackend.EFFICIENT_ATTENTION], only_cuda),
        _flex_opponent(op, device),
    ]


def _sdpa(backends: list[SDPBackend], *tensors: Tensor, **options: Any) -> Tensor:
    with sdpa_kernel(backends) if backends else nullcontext():
        return F.scaled_dot_product_attention(*tensors, **options)


def _by_sequence(attend: Callable[..., Tensor], key_bias: Tensor | None, is_causal: bool, **tensors: Tensor) -> Tensor:
    return attend(*tensors.values(), attn_mask=key_bias, is_causal=is_causal)


def _by_sample(attend: Callable[..., Tensor], key_bias: Tensor, is_causal: bool, **tensors: Tensor) -> Tensor:
    """`shared_attention` of an attention without it: every mask is a sequence, [B, N, H, Q, h]."""
    return repeated(partial(attend, attn_mask=key_bias, is_causal=is_causal), key_bias, *tensors.values())


def repeated(attend: Callable[..., Tensor], key_bias: Tensor, *tensors: Tensor) -> Tensor:
    num_masks = len(key_bias) // len(tensors[0])
    sequences = (x.unsqueeze(1).expand(-1, num_masks, -1, -1, -1).flatten(0, 1) for x in tensors)
    return attend(*sequences).unflatten(0, (-1, num_masks))


def _padding(inputs: Inputs) -> Tensor | None:
    """[G, T] bool, True for a padded key; None if there is none."""
    valid = inputs["key_valid"]
    return None if valid is None or valid.all() else ~valid


def _hidden(inputs: Inputs) -> Tensor | None:
    """What hides keys, added to scores: [1 or G, 1, 1 or Q, T] fp32; None if no key is hidden."""
    query, padding = inputs["query"], _padding(inputs)
    parts = [] if padding is None else [padding[:, None, None, :]]
    if inputs["causal"]:
        shape = (query.shape[2], inputs["key"].shape[2])
        parts.append(torch.ones(shape, dtype=torch.bool, device=query.device).triu(1)[None, None])
    if not parts:
        return None
    hidden = parts[0] if len(parts) == 1 else parts[0] | parts[1]
    return torch.zeros(hidden.shape, device=query.device).masked_fill(hidden, HIDDEN_SCORE)


def _with_mask(inputs: Inputs) -> Inputs:
    """The inputs with one additive mask as key_bias, in the dtype of query: a leaf if the op's bias is one.

    Where there is nothing but a causal order to say, it stays a flag, which admits flash attention.
    """
    hidden, bias = _hidden(inputs), inputs["key_bias"]
    given = {name: inputs[name] for name in ("query", "key", "value")}
    if bias is None:
        is_causal = inputs["causal"] and _padding(inputs) is None
        mask = None if hidden is None or is_causal else hidden.to(given["query"].dtype)
        return {**given, "key_bias": mask, "is_causal": is_causal}
    mask = bias.detach().reshape(-1, 1, 1, bias.shape[-1])  # [G, 1, 1, T]
    if hidden is not None:
        repeats = len(mask) // len(hidden) if len(hidden) > 1 else 1
        mask = mask + hidden.repeat_interleave(repeats, 0)
    mask = mask.to(given["query"].dtype).requires_grad_(bias.requires_grad)
    return {**given, "key_bias": mask, "is_causal": False}


def _flex_opponent(op: str, device: torch.device) -> Opponent:
    name = "flex_attention"
    if device.type != "cuda":
        return Opponent(name, dict, why_not="has no backward pass on a CPU", is_compiled=True)
    try:
        from torch.nn.attention.flex_attention import flex_attention
    except ImportError as error:
        return Opponent(name, dict, why_not=f"not in this torch: {error}", is_compiled=True)
    attend = flex if op == "masked_attention" else flex_by_sample

    def function(**inputs: Any) -> Tensor:
        return attend(flex_attention, **inputs)

    return Opponent(name, _compiled(function), prepare=_with_ends, is_compiled=True)


def _with_ends(inputs: Inputs) -> Inputs:
    """The inputs with the validity of keys as numbers to add, [G, T]; the causal order is a comparison."""
    hidden = _padding(inputs)
    if hidden is not None:
        hidden = torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, HIDDEN_SCORE)
    given = {name: inputs[name] for name in ("query", "key", "value", "key_bias", "causal")}
    return {**given, "hidden": hidden}


def flex(
    attend: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    causal: bool,
    hidden: Tensor | None,
) -> Tensor:
    """One score_mod: block masks together with it give NaN for lengths that are no multiple of 128 (torch #153799)."""

    def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if key_bias is not None:
            score = score + key_bias[b, j]
        if hidden is not None:
            score = score + hidden[b, j]
        return torch.where(i >= j, score, HIDDEN_SCORE) if causal else score

    return attend(query, key, value, score_mod=score_mod)


def flex_by_sample(
    attend: Callable[..., Tensor], key_bias: Tensor, causal: bool, hidden: Tensor | None, **tensors: Tensor
) -> Tensor:
    num_masks = key_bias.shape[1]
    every = None if hidden is None else hidden.repeat_interleave(num_masks, 0)
    flat = key_bias.flatten(0, 1)  # [B N, T]

    def each(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return flex(attend, query, key, value, flat, causal, every)

    return repeated(each, flat, *tensors.values())
