"""Logs of mixtures from logs of masks: every backend against the loops, with all gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pps_fast.kernels import mixture_exponent as kernel
from pps_fast.ops.attentive_pooling import importance
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.mixture_exponent import mixture_exponent
from pps_fast.proposals.layout import ramp
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, over_cases


@over_cases("mixture_exponent")
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_loops(case: Case, dtype: torch.dtype) -> None:
    check_case(mixture_exponent, "mixture_exponent", case, dtype)


@over_cases("mixture_exponent")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(mixture_exponent, "mixture_exponent", case, dtype, backend="triton")


def test_strides_do_not_matter() -> None:
    check_non_contiguous(mixture_exponent, CASES["mixture_exponent"][1])


def test_backends_are_chosen_as_asked() -> None:
    check_backends(mixture_exponent, CASES["mixture_exponent"][0])


def _inputs(samples: int, components: int, num_positions: int) -> tuple[Tensor, Tensor]:
    return -5 * torch.rand(samples, components, num_positions), torch.rand(samples, components)


def _run(backend: str, inputs: tuple[Tensor, ...], group: Tensor, num_groups: int) -> list[Tensor]:
    """Result and gradients, for an incoming gradient that is neither 1 nor contiguous."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    result = mixture_exponent(*leaves, group, num_groups, backend=backend)
    grad = torch.linspace(-2, 3, result.numel(), device=result.device).to(result.dtype).reshape(result.shape)
    result.backward(grad.transpose(0, 1).contiguous().transpose(0, 1))
    return [result.detach(), *(x.grad for x in leaves)]


def _assert_same(inputs: tuple[Tensor, ...], group: Tensor, num_groups: int) -> None:
    for got, expected in zip(*(_run(name, inputs, group, num_groups) for name in ("triton", "torch")), strict=True):
        assert got.dtype == expected.dtype
        assert_agree("mixture_exponent", got, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("proposals", range(1, 8))
def test_the_kernel_takes_every_ramp(proposals: int, poisoned_empty: None) -> None:
    layout = ramp(proposals)
    _assert_same(_inputs(2, layout.num_components, 5), torch.tensor(layout.group), proposals)


@pytest.mark.parametrize(
    ("samples", "components", "num_positions"),
    [(1, 3, 1), (2, 3, 2), (3, 5, 7), (2, 28, 49), (1, 9, 63), (2, 7, 200), (1, 64, 33), (1, 19, 512)],
)
def test_the_kernel_mixes_odd_shapes(samples: int, components: int, num_positions: int, poisoned_empty: None) -> None:
    _assert_same(_inputs(samples, components, num_positions), torch.arange(components) % 3, 3)


def test_the_kernel_leaves_out_components_of_no_proposal(poisoned_empty: None) -> None:
    _assert_same(_inputs(2, 5, 4), torch.tensor([0, 2, 0, 1, -1]), 2)


def test_the_kernel_reads_any_strides_and_repeats_itself() -> None:
    packed, group = _inputs(3, 5, 4), torch.tensor([0, 0, 1, 1, 1])
    strided = tuple(torch.stack((x, x), -1).transpose(0, 1).contiguous().transpose(0, 1)[..., 0] for x in packed)
    assert not any(x.is_contiguous() for x in strided)
    expected = _run("triton", packed, group, 2)
    for _ in range(2):
        for got, first in zip(_run("triton", strided, group, 2), expected, strict=True):
            assert_agree("mixture_exponent", got, first)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_where_masks_underflow_the_result_is_that_of_float64(backend: str) -> None:
    exponents = 8 * torch.rand(2, 6, 10) - 1000
    weights = importance(torch.randn(2, 6), torch.arange(6) % 2, 2)
    got = _run(backend, (exponents, weights), torch.arange(6) % 2, 2)
    exact = _run("torch", (exponents.double(), weights.double()), torch.arange(6) % 2, 2)
    # an exponent of 1000 is rounded to 6e-5, and so are its shares
    for name, value, wanted, rtol in zip(
        ("value", "exponents", "weights"), got, exact, (1e-6, 5e-4, 5e-4), strict=True
    ):
        assert_agree(name, value.double(), wanted, rtol=rtol)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_weight_of_zero_counts_as_the_smallest_number_and_gets_no_gradient(backend: str) -> None:
    exponents, weights = torch.tensor([[[-90.0], [-95.0]]]), torch.tensor([[1.0, 0.0]])
    value, *grads = _run(backend, (exponents, weights), torch.tensor([0, 0]), 1)
    assert_agree("value", value, torch.tensor([[[-90.0]]]))
    assert_agree("exponents", grads[0], torch.tensor([[[-2.0], [0.0]]]), atol=1e-7)
    assert_agree("weights", grads[1], torch.tensor([[-2.0, 0.0]]))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_nan_is_not_hidden(backend: str) -> None:
    for index in range(2):
        inputs = _inputs(1, 3, 4)
        inputs[index].view(-1)[0] = math.nan
        result = mixture_exponent(*inputs, torch.tensor([0, 0, 1]), 2, backend=backend)
        assert torch.isnan(result[0, 0, 0]) and not torch.isnan(result[0, 1]).any()


def test_the_smallest_weight_is_that_of_the_equation() -> None:
    assert kernel.TINY.value == torch.finfo(torch.float32).tiny


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exponents": torch.rand(2, 3, 4).double()}, "exponents is torch.float64; the kernel computes in float32"),
        ({"num_groups": 0}, "num_groups = 0; the kernel needs at least 1"),
        ({"exponents": torch.rand(2, 3, 600)}, "exponents has 600 positions; the kernel takes 1 to 512"),
        (
            {
                "exponents": torch.rand(2, 65, 4),
                "importance": torch.rand(2, 65),
                "group": torch.zeros(65, dtype=torch.int64),
            },
            "exponents has 65 components; the kernel takes 1 to 64",
        ),
    ],
)
def test_the_kernel_refuses_what_it_cannot_mix(changes: dict, reason: str) -> None:
    inputs = {
        "exponents": torch.rand(2, 3, 4),
        "importance": torch.rand(2, 3),
        "group": torch.zeros(3, dtype=torch.int64),
        "num_groups": 1,
    }
    assert not mixture_exponent.reasons(**inputs)
    with pytest.raises(BackendError, match=reason):
        mixture_exponent(**inputs | changes, backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    exponents, weights, group = torch.rand(2, 3, 4), torch.rand(2, 3), torch.tensor([0, 0, 1])
    mixed, utils = torch.rand(2, 2, 4), ("test_schema", "test_autograd_registration", "test_faketensor")
    for name, arguments in {
        "mixture_exponent_fwd": (exponents, weights, group, 2),
        "mixture_exponent_bwd": (mixed, exponents, weights, group, mixed + 1),
    }.items():
        results = torch.library.opcheck(getattr(torch.ops.pps_fast, name), arguments, test_utils=utils)
        assert set(results.values()) == {"SUCCESS"}, name


@pytest.mark.gpu
@pytest.mark.parametrize(("components", "num_positions"), [(28, 50), (64, 512)])
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(components: int, num_positions: int) -> None:
    inputs = tuple(x.cuda() for x in _inputs(32, components, num_positions))
    group = torch.arange(components, device="cuda") // 4
    got = _run("triton", inputs, group, components // 4)
    expected = _run("torch", tuple(x.double() for x in inputs), group, components // 4)
    for value, exact in zip(got, expected, strict=True):
        assert_agree("mixture_exponent", value.double(), exact, rtol=1e-5)
