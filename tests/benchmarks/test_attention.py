"""Torch's attention in place of our ops computes the same, and is gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.attention import attention, sdpa_masked, sdpa_shared
from pps_fast import equations
from pps_fast.encoder import fused_stack, transformer
from tests.support.compare import assert_agree

VALID = torch.tensor([[True, True, True, True, False], [True, True, True, False, False]])


def _inputs(num_masks: int | None) -> dict[str, Any]:
    tensors = {name: torch.randn(2, 4, 5, 8, dtype=torch.float64) for name in ("query", "key", "value")}
    shape = (2, 5) if num_masks is None else (2, num_masks, 5)
    tensors["key_bias"] = torch.rand(shape, dtype=torch.float64).log()
    return {name: value.requires_grad_() for name, value in tensors.items()}


def _gradients(function: Any, inputs: dict[str, Any], **others: Any) -> tuple[Tensor, ...]:
    result = function(**inputs, **others)
    return (result, *torch.autograd.grad(result.square().sum(), [x for x in inputs.values() if x is not None]))


@pytest.mark.parametrize("valid", [None, VALID])
@pytest.mark.parametrize("causal", [False, True])
def test_sdpa_gives_values_and_gradients_of_the_equations(causal: bool, valid: Tensor | None) -> None:
    others = {"key_valid": valid, "causal": causal}
    one, many = _inputs(None), _inputs(3)
    pairs = [(sdpa_masked, equations.masked_attention, one), (sdpa_shared, equations.shared_attention, many)]
    pairs.append((sdpa_masked, equations.masked_attention, {**one, "key_bias": None}))
    for ours, equation, inputs in pairs:
        for got, expected in zip(
            _gradients(ours, inputs, **others), _gradients(equation, inputs, **others), strict=True
        ):
            assert_agree("sdpa", got, expected, atol=1e-10)


def test_a_model_that_serves_fused_sub_layers_attends_by_the_replacement() -> None:
    served, before = object(), fused_stack.serves
    with attention("sdpa"):
        assert not fused_stack.serves(served, served, served, served, None)
        assert transformer.masked_attention is sdpa_masked
    assert fused_stack.serves is before
    with attention("ours"):
        assert fused_stack.serves is before


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [False, True])
def test_flex_gives_the_values_of_the_equations(causal: bool) -> None:
    others = {"key_valid": VALID, "causal": causal}
    # uncompiled, and forward only: it has no backward pass on a CPU
    with attention("flex", compiler=lambda function: function), torch.no_grad():
        for op, inputs in (("masked_attention", _inputs(None)), ("shared_attention", _inputs(3))):
            inputs = {name: value.float() for name, value in inputs.items()}
            expected = getattr(equations, op)(**inputs, **others)
            assert_agree(op, getattr(transformer, op)(**inputs, **others), expected, atol=1e-5)
        # where there is no mask it is SDPA
        inputs = {**_inputs(None), "key_bias": None}
        got = transformer.masked_attention(**inputs, **others)
        assert_agree("no mask", got, equations.masked_attention(**inputs, **others), atol=1e-10)


def test_nothing_is_left_behind() -> None:
    before = (transformer.masked_attention, transformer.shared_attention)
    with pytest.raises(KeyError), attention("sdpa"):
        assert transformer.masked_attention is sdpa_masked and transformer.shared_attention is sdpa_shared
        raise KeyError
    assert (transformer.masked_attention, transformer.shared_attention) == before
    with attention("ours"):
        assert (transformer.masked_attention, transformer.shared_attention) == before
