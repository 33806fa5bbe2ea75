"""Mask-conditioned attention: every backend against the loops, with all gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from pps_fast.backend import Op
from pps_fast.ops.masked_attention import masked_attention
from tests.cases import CASES, Case
from tests.compare import assert_agree
from tests.ops.check import DTYPES, check_backends, check_case, check_non_contiguous

OPS = (masked_attention,)
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in CASES[op.name]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype) -> None:
    check_case(op, "masked_attention", case, dtype)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_strides_do_not_matter(op: Op) -> None:
    check_non_contiguous(op, CASES[op.name][1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_backends_are_chosen_as_asked(op: Op) -> None:
    check_backends(op, CASES[op.name][0])


def test_ops_are_named_after_their_equations() -> None:
    assert [op.name for op in OPS] == ["masked_attention"]


def _attention_inputs(num_keys: int = 5) -> dict[str, Tensor]:
    rng = np.random.default_rng(5)
    shapes = {"query": (2, 1, num_keys, 4), "key": (2, 1, num_keys, 4), "value": (2, 1, num_keys, 4)}
    return {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_of_ones_is_no_mask(causal: bool) -> None:
    inputs = _attention_inputs()
    ones = masked_attention(**inputs, key_mask=torch.ones(2, 5), causal=causal)
    assert_agree("attention", ones, masked_attention(**inputs, causal=causal), atol=1e-14)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30])
def test_a_mask_that_is_zero_everywhere_is_no_mask(value: float) -> None:
    inputs = _attention_inputs()
    mask = torch.full((2, 5), value, dtype=torch.float64)
    got = masked_attention(**inputs, key_mask=mask)
    assert_agree("attention", got, masked_attention(**inputs), atol=1e-13)


def test_keys_outside_the_mask_keep_the_share_of_the_floor() -> None:
    inputs = {name: torch.zeros(1, 1, 2, 1) for name in ("query", "key")}
    value = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1).double()
    got = masked_attention(**inputs, value=value, key_mask=torch.tensor([[0.0, 1.0]]).double())
    assert_agree("share", got, torch.full((1, 1, 2, 1), 1e-10, dtype=torch.float64), rtol=1e-6)


def test_rows_before_the_support_of_the_mask_fall_back_to_plain_attention() -> None:
    inputs = _attention_inputs()
    mask = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]]).double().expand(2, -1)
    got = masked_attention(**inputs, key_mask=mask, causal=True)
    plain = masked_attention(**inputs, causal=True)
    assert_agree("before", got[:, :, :3], plain[:, :, :3], atol=1e-13)
    assert (got[:, :, 3:] - plain[:, :, 3:]).abs().max() > 0.1


def test_stiff_gradient_of_a_vanishing_mask_agrees_with_finite_differences_on_the_scale_of_the_floor() -> None:
    inputs = _attention_inputs(4)
    scaled = torch.rand(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return masked_attention(**inputs, key_mask=x * 1e-10, causal=True)

    assert gradcheck(run, (scaled,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_rows_of_padding_only_average_all_keys_and_stay_finite(dtype: torch.dtype, causal: bool) -> None:
    inputs = {name: value.to(dtype).requires_grad_() for name, value in _attention_inputs().items()}
    mask = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    valid = torch.tensor([[False] * 5, [True] * 5])
    got = masked_attention(**inputs, key_mask=mask, key_valid=valid, causal=causal)
    assert got.dtype == dtype
    mean = inputs["value"][0].mean(1, keepdim=True).expand(-1, 5, -1)
    assert_agree("padding", got[0], mean, atol=1e-6 if dtype == torch.float32 else 2e-2)
    got.float().square().sum().backward()
    for leaf in (*inputs.values(), mask):
        assert torch.isfinite(leaf.grad).all()


def test_hidden_keys_never_enter() -> None:
    inputs = _attention_inputs()
    valid = torch.tensor([[True, True, True, False, False]]).expand(2, -1)
    expected = masked_attention(**inputs, key_valid=valid)
    for name in ("key", "value"):
        inputs[name] = inputs[name].clone()
        inputs[name][:, :, 3:] = 1e6
    assert_agree("attention", masked_attention(**inputs, key_valid=valid), expected)
