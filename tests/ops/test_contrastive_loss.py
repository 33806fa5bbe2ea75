"""The contrastive loss: every backend against the loops, with all gradients, and its kinks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pps_fast.ops.contrastive_loss import contrastive_loss
from pps_fast.ops.dispatch import BackendError
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, over_cases

MARGINS = (0.1, 0.15)


@over_cases("contrastive_loss")
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_loops(case: Case, dtype: torch.dtype) -> None:
    check_case(contrastive_loss, "contrastive_loss", case, dtype)


@over_cases("contrastive_loss")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(contrastive_loss, "contrastive_loss", case, dtype, backend="triton")


def test_strides_do_not_matter() -> None:
    check_non_contiguous(contrastive_loss, CASES["contrastive_loss"][1])


def test_backends_are_chosen_as_asked() -> None:
    check_backends(contrastive_loss, CASES["contrastive_loss"][0])


def _inputs(samples: int, best: int, negatives: int) -> tuple[Tensor, ...]:
    # quarters, so that many hinges are at their kink whatever the precision
    return tuple(torch.randint(8, shape) / 4 for shape in ((samples, best), (samples,), (samples, best, negatives)))


def _run(backend: str, inputs: tuple[Tensor, ...], margins: tuple[float, float]) -> list[Tensor]:
    """Loss and gradients, scaled."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    loss = contrastive_loss(*leaves, *margins, backend=backend)
    (-2.5 * loss).backward()
    return [loss.detach(), *(x.grad for x in leaves)]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (32, 1, 1), (33, 1, 2), (7, 3, 1), (3, 64, 5), (1030, 1, 1)])
def test_the_kernel_takes_odd_shapes_and_halves_gradients_at_kinks(
    sizes: tuple[int, ...], poisoned_empty: None
) -> None:
    inputs = _inputs(*sizes)
    got, expected = (_run(backend, inputs, (0.25, 0.5)) for backend in ("triton", "torch"))
    for value, exact in zip(got, expected, strict=True):
        assert value.dtype == exact.dtype and value.shape == exact.shape
        assert_agree("contrastive_loss", value, exact, rtol=1e-6, atol=1e-7)
    assert all(value.equal(again) for value, again in zip(got, _run("triton", inputs, (0.25, 0.5)), strict=True))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_every_gradient_at_a_kink_is_half_of_that_beyond(backend: str) -> None:
    inputs = torch.tensor([[1.0]]), torch.tensor([1.5]), torch.tensor([[[0.75]]])
    _, *grads = _run(backend, inputs, (0.5, -0.25))
    assert [x.item() for x in grads] == [-2.5, 1.25, 1.25]


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("index", range(3))
def test_a_nan_is_not_hidden(index: int, backend: str) -> None:
    inputs = _inputs(3, 2, 2)
    inputs[index].view(-1)[-1] = math.nan
    assert torch.isnan(contrastive_loss(*inputs, *MARGINS, backend=backend))


def test_a_margin_of_minus_infinity_switches_a_hinge_off() -> None:
    inputs = _inputs(4, 2, 2)
    got, expected = (_run(backend, inputs, (0.1, -math.inf)) for backend in ("triton", "torch"))
    for value, exact in zip(got, expected, strict=True):
        assert_agree("contrastive_loss", value, exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "dtype", "reason"),
    [
        (((2, 1), (2,), (2, 1, 1)), torch.float64, "best_nll is torch.float64; the kernel computes in float32"),
        (((2, 65), (2,), (2, 65, 1)), torch.float32, "best_nll has 65 proposals; the kernel takes 1 to 64"),
        (((2, 1), (2,), (2, 1, 0)), torch.float32, "the kernel takes no empty tensor"),
    ],
)
def test_the_kernel_refuses_what_it_cannot_compute(shapes: tuple, dtype: torch.dtype, reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        contrastive_loss(*(torch.rand(shape, dtype=dtype) for shape in shapes), *MARGINS, backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    inputs, utils = _inputs(3, 2, 2), ("test_schema", "test_autograd_registration", "test_faketensor")
    for name, arguments in {
        "contrastive_loss_fwd": (*inputs, *MARGINS),
        "contrastive_loss_bwd": (torch.rand(()), *inputs, *MARGINS),
    }.items():
        results = torch.library.opcheck(getattr(torch.ops.pps_fast, name), arguments, test_utils=utils)
        assert set(results.values()) == {"SUCCESS"}, name


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [(32, 1, 1), (300, 7, 2)])
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(sizes: tuple[int, ...]) -> None:
    inputs = tuple(x.cuda() for x in _inputs(*sizes))
    got = _run("triton", inputs, (0.25, 0.5))
    expected = _run("torch", tuple(x.double() for x in inputs), (0.25, 0.5))
    for value, exact in zip(got, expected, strict=True):
        assert_agree("contrastive_loss", value.double(), exact, rtol=1e-6)
