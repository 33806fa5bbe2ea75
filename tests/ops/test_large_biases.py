"""Attention under biases far from 0, forward and backward, against float64: no row, real or not, may overflow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.ops.dispatch import Op
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.shared_attention import shared_attention

# queries and keys: one tile, and several blocks with a part of one left over
SIZES = [5, 40]
NAMES = ("query", "key", "value", "key_bias")


def _inputs(op: Op, length: int, scale: float, is_level: bool) -> dict[str, Tensor]:
    """Inputs in float64; biases all near the scale, or anywhere between minus the scale and the scale."""
    rng = torch.Generator().manual_seed(length)
    inputs = {name: torch.randn(2, 3, length, 8, generator=rng) for name in NAMES[:3]}
    bias = torch.rand(2, *(() if op is masked_attention else (4,)), length, generator=rng)
    inputs["key_bias"] = scale + bias if is_level else scale * (2 * bias - 1)
    # half precision of the inputs is exact in every dtype that computes with them
    return {name: x.bfloat16().double() for name, x in inputs.items()}


def _results(op: Op, inputs: dict[str, Tensor], dtype: torch.dtype, causal: bool, backend: str) -> dict[str, Tensor]:
    """The result and all gradients, in float64; keys of the second sample are partly padding."""
    leaves = {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}
    length = inputs["key"].shape[2]
    valid = torch.arange(length) < torch.tensor([[length], [length // 2]])
    value = op(**leaves, key_valid=valid, causal=causal, backend=backend)
    weight = torch.linspace(-1.3, 1.7, value.numel(), dtype=torch.float64).reshape(value.shape)
    grads = torch.autograd.grad((value.double() * weight).sum(), list(leaves.values()))
    named = {f"gradient of {name}": grad for name, grad in zip(NAMES, grads, strict=True)}
    return {name: x.detach().double() for name, x in ({"value": value} | named).items()}


@pytest.mark.parametrize("op", [masked_attention, shared_attention], ids=lambda op: op.name)
@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("is_level", [True, False], ids=["level", "spread"])
@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_large_biases_give_the_numbers_of_float64(
    op: Op, length: int, causal: bool, is_level: bool, scale: float, poisoned_empty: None
) -> None:
    inputs = _inputs(op, length, scale, is_level)
    expected = _results(op, inputs, torch.float64, causal, "torch")
    # a score of size 1e4 has an absolute error of 1e4 eps in fp32, and so have the logs of all shares
    limit = 5e-6 + 4 * torch.finfo(torch.float32).eps * scale
    for backend in ("torch", "triton"):
        for name, got in _results(op, inputs, torch.float32, causal, backend).items():
            scale_of = max(expected[name].norm().item(), 1e-3 * expected["value"].norm().item())
            error = (got - expected[name]).norm().item() / scale_of
            assert error <= limit, f"{name}, {backend}: error {error:.1e}"
