"""Masks of components over time: every backend against the loops, with all gradients."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.ops.dispatch import BackendError, Op
from pps_fast.ops.gaussian_mask import gaussian_exponent, gaussian_mask, gaussian_peak_mask, laplace_mask
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, leaf, values_of

OPS = (
    gaussian_mask,
    gaussian_peak_mask,
    laplace_mask,
)
# with the exponent, which has no log beside it
ALL = (*OPS, gaussian_exponent)
GOLDEN = Path(__file__).parents[1] / "golden" / "kernels_f64.npz"
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in ALL for case in CASES[op.name]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype) -> None:
    check_case(op, "gaussian_mask", case, dtype)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_strides_do_not_matter(op: Op) -> None:
    check_non_contiguous(op, CASES[op.name][1])


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_backends_are_chosen_as_asked(op: Op) -> None:
    check_backends(op, CASES[op.name][0])


def test_ops_are_named_after_their_equations() -> None:
    assert [op.name for op in ALL] == ["gaussian_mask", "gaussian_peak_mask", "laplace_mask", "gaussian_exponent"]


@pytest.mark.parametrize("mask", ALL, ids=lambda op: op.name)
def test_one_position_is_refused(mask: Op) -> None:
    with pytest.raises(ValueError, match=f"{mask.name}: num_positions = 1, expected 2 or more"):
        mask(torch.tensor([0.5]), torch.tensor([0.5]), 9.0, 1)


@pytest.mark.parametrize("mask", OPS, ids=lambda op: op.name)
def test_a_center_on_the_grid_gives_one_there_and_minus_zero_is_zero(mask: Op) -> None:
    got, log = mask(torch.tensor([0.0, -0.0, 1.0]), torch.tensor([0.3, 0.3, 0.3]), 9.0, 5)
    assert_agree("peak", torch.stack((got[0, 0], got[1, 0], got[2, 4])), torch.ones(3))
    assert_agree("log of the peak", torch.stack((log[0, 0], log[1, 0], log[2, 4])), torch.zeros(3))
    assert_agree("minus zero", got[1], got[0])
    assert_agree("mirror", got[2].flip(0), got[0], atol=1e-6)


@pytest.mark.parametrize("mask", OPS, ids=lambda op: op.name)
def test_widths_below_the_floor_are_drawn_at_the_floor_and_get_no_gradient(mask: Op) -> None:
    center, width = leaf([0.41, 0.41, 0.41]), leaf([0.001, 0.05, 0.2])
    for result in mask(center, width, 4.0, 50, width_floor=0.05):
        assert_agree("floor", result[0], result[1])
        total = (result * torch.linspace(0, 1, 50)).sum()
        grad_center, grad_width = torch.autograd.grad(total, (center, width), retain_graph=True)
        assert grad_width[0] == 0
        assert grad_width[2] != 0
        assert (grad_center != 0).all()


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("mask", ALL, ids=lambda op: op.name)
def test_a_width_equal_to_the_floor_has_the_gradient_of_one_just_above(mask: Op, backend: str) -> None:
    floor = 0.0625  # a binary fraction, so that the comparison is exact in every dtype
    grads = []
    for value in (floor, floor * (1 + 1e-6)):
        width = torch.tensor([value], requires_grad=True)
        result = values_of(mask(torch.tensor([0.41]), width, 4.0, 50, width_floor=floor, backend=backend))[0]
        (result * torch.linspace(0, 1, 50)).sum().backward()
        grads.append(width.grad)
    assert grads[1].abs().item() > 1e-3
    assert_agree("gradient at the floor", grads[0], grads[1], rtol=1e-3)


@pytest.mark.parametrize("mask", [gaussian_peak_mask, laplace_mask], ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_peaks_are_one_however_narrow_the_mask(mask: Op, dtype: torch.dtype) -> None:
    center = torch.tensor([0.5, 0.499, 0.0101], dtype=dtype)
    got, log = mask(center, torch.full_like(center, 1e-4), 9.0, 16)
    assert_agree("peak", got.amax(-1), torch.ones(3))
    assert_agree("log of the peak", log.amax(-1), torch.zeros(3))
    outside, log = mask(center, torch.full_like(center, 1e-4), 9.0, 16, inverse=True)
    assert_agree("no peak", outside.amin(-1), torch.zeros(3))
    assert_agree("log of nothing", log.amin(-1), torch.full((3,), math.log(1e-10)), rtol=1e-6)


@pytest.mark.parametrize("mask", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_an_inverse_mask_is_what_the_mask_leaves_out_to_the_last_digit(mask: Op, backend: str) -> None:
    center, width = torch.tensor([0.3, 0.512]), torch.tensor([0.9, 0.2])
    inside, _ = mask(center, width, 2.0, 50, backend=backend)
    outside, log = mask(center, width, 2.0, 50, inverse=True, backend=backend)
    assert_agree("sum", inside + outside, torch.ones(2, 50), atol=2e-7)
    exact, exact_log = mask(center.double(), width.double(), 2.0, 50, inverse=True, backend="torch")
    # 1 - f of a fp32 f is wrong by 6e-8, which is all there is near the center
    near = exact < 1e-2
    assert near.any()
    error = ((outside - exact).abs() / (exact + 1e-7))[near].max()
    assert error < 1e-3, f"{error:.1e}"
    assert_agree("log", log.double(), exact_log, atol=1e-3)


@pytest.mark.parametrize("mask", [gaussian_peak_mask, laplace_mask], ids=lambda op: op.name)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_log_of_an_inverse_mask_has_no_gradient_at_the_peak_and_all_of_it_elsewhere(mask: Op, backend: str) -> None:
    """1 - f is 0 at the peak wherever the center is; its 1 / 1e-10 must not drown what other positions send back."""
    center, width = leaf([[0.37, 0.62]]), leaf([[0.5, 0.3]])
    results = []
    for chosen, dtype in ((backend, torch.float32), ("torch", torch.float64)):
        leaves = [x.detach().to(dtype).requires_grad_() for x in (center, width)]
        _, log = mask(*leaves, 4.0, 20, inverse=True, backend=chosen)
        results.append(torch.autograd.grad((log * torch.linspace(-1, 2, 20)).sum(), leaves))
    for got, exact in zip(*results, strict=True):
        assert_agree("gradient", got.double(), exact, rtol=2e-5)


def test_tied_peaks_are_both_one_and_their_gradient_is_that_of_the_first() -> None:
    center, width, sigma = leaf([0.25]), leaf([0.6]), 4.0
    got = gaussian_peak_mask(center, width, sigma, 3)[0][0]
    assert_agree("tie", got[:2], torch.ones(2))
    position, s = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), 0.6 / sigma
    expected = got.detach() * (position - position[0]) / s**2
    grads = torch.stack([torch.autograd.grad(got[t], center, retain_graph=True)[0][0] for t in range(3)])
    assert_agree("gradient", grads, expected, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_exponent_goes_on_where_the_mask_is_zero(backend: str) -> None:
    results = []
    for chosen, dtype in ((backend, torch.float32), ("torch", torch.float64)):
        leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in ([0.0, 0.31, 1.0], [0.9, 0.02, 0.004])]
        exponent = gaussian_exponent(*leaves, 9.0, 8, backend=chosen)
        results.append((exponent, *torch.autograd.grad((exponent * torch.linspace(-1, 2, 8)).sum(), leaves)))
    assert (results[0][0] < -1000).any() and (results[0][0].exp() == 0).any()
    for got, exact in zip(*results, strict=True):
        assert_agree("exponent", got.double(), exact, rtol=1e-5)


def test_a_mask_that_vanishes_between_positions_has_finite_gradients() -> None:
    center = torch.full((1, 2), 0.5, requires_grad=True)
    width = torch.full((1, 2), 0.011, requires_grad=True)
    got, log = gaussian_mask(center, width, 9.0, 16)
    assert_agree("mask", got, torch.zeros(1, 2, 16))
    assert_agree("log", log, torch.full((1, 2, 16), math.log(1e-10)), rtol=1e-6)
    (got + log).sum().backward()
    assert_agree("gradients", torch.stack((center.grad, width.grad)), torch.zeros(2, 1, 2))


@pytest.mark.parametrize("mask", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_centers_give_fp32_masks_of_the_rounded_values(mask: Op, dtype: torch.dtype) -> None:
    center, width = torch.tensor([0.13, 0.77]).to(dtype), torch.tensor([0.4, 0.21]).to(dtype)
    exact = mask(center.double(), width.double(), 9.0, 50)
    for got, expected in zip(mask(center, width, 9.0, 50), exact, strict=True):
        assert got.dtype == torch.float32
        assert_agree("mask", got, expected, atol=1e-5)


def _fused(op: Op) -> partial:
    return partial(op, backend="triton")


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("op", "case"), EACH)
def test_the_kernel_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(op, "gaussian_mask", case, dtype, backend="triton")


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
@pytest.mark.parametrize(
    ("rows", "num_positions"), [((1,), 2), ((3, 28), 7), ((2, 5), 49), ((70,), 63), ((3, 3), 200), ((2,), 201)]
)
def test_the_kernel_draws_odd_shapes_over_several_programs(
    op: Op, rows: tuple[int, ...], num_positions: int, poisoned_empty: None
) -> None:
    center, width = torch.rand(rows), torch.rand(rows) * 0.5
    expected = values_of(op(center, width, 9.0, num_positions, backend="torch"))
    for got, result in zip(values_of(_fused(op)(center, width, 9.0, num_positions)), expected, strict=True):
        assert_agree(op.name, got, result, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_the_kernel_reads_any_strides_and_respects_the_incoming_gradient(op: Op) -> None:
    packed = torch.rand(2, 4, 6)
    results = []
    for backend in ("triton", "torch"):
        leaf_ = packed.clone().requires_grad_()
        center, width = leaf_[0].t(), leaf_[1].t()
        outputs = values_of(op(center, width, 4.0, 11, backend=backend))
        incoming = torch.linspace(-2, 3, outputs[0].numel()).reshape(outputs[0].shape)
        incoming = incoming.transpose(0, 1).contiguous().transpose(0, 1)
        torch.autograd.backward(outputs, (incoming, incoming.flip(0))[: len(outputs)])
        results.append((*(value.detach() for value in outputs), leaf_.grad))
    for got, expected in zip(*results, strict=True):
        assert_agree(op.name, got, expected, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("index", [0, 1])
def test_either_result_may_be_left_without_gradient(op: Op, index: int) -> None:
    results = []
    for backend in ("triton", "torch"):
        center, width = torch.tensor([0.3, 0.61], requires_grad=True), torch.tensor([0.5, 0.2], requires_grad=True)
        op(center, width, 4.0, 11, backend=backend)[index].square().sum().backward()
        results.append((center.grad, width.grad))
    for got, expected in zip(*results, strict=True):
        assert_agree(op.name, got, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"center": torch.rand(3, dtype=torch.float64)}, "the kernel computes in float32"),
        (dict.fromkeys(("center", "width"), torch.rand(2, 0)), "the kernel takes no empty tensor"),
        ({"num_positions": 5000}, "num_positions = 5000; the kernel draws 2 to 4096"),
    ],
)
def test_the_kernel_refuses_what_it_cannot_draw(changes: dict, reason: str) -> None:
    inputs = {"center": torch.rand(3), "width": torch.rand(3), "sigma": 9.0, "num_positions": 8, **changes}
    assert any(reason in sentence for sentence in gaussian_mask.reasons(**inputs))
    with pytest.raises(BackendError, match=reason):
        gaussian_mask(**inputs, backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    center, width = torch.rand(2, 3), torch.rand(2, 3)
    grads = torch.rand(2, 3, 8), torch.rand(2, 3, 8)
    forward, backward = torch.ops.pps_fast.gaussian_mask_fwd, torch.ops.pps_fast.gaussian_mask_bwd
    for shape, inverse in ((0, False), (1, True), (2, False)):
        results = torch.library.opcheck(forward, (center, width, 9.0, 8, 0.01, shape, inverse))
        assert set(results.values()) == {"SUCCESS"}
        results = torch.library.opcheck(backward, (*grads, center, width, 9.0, 0.01, shape, inverse))
        assert set(results.values()) == {"SUCCESS"}
    forward, backward = torch.ops.pps_fast.gaussian_exponent_fwd, torch.ops.pps_fast.gaussian_exponent_bwd
    for operator, arguments in (
        (forward, (center, width, 9.0, 8, 0.01)),
        (backward, (grads[0], center, width, 9.0, 0.01)),
    ):
        assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(op: Op, inverse: bool) -> None:
    results = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        torch.manual_seed(0)
        center = torch.rand(32, 28, device="cuda").to(dtype).requires_grad_()
        width = (0.02 + 0.5 * torch.rand(32, 28, device="cuda")).to(dtype).requires_grad_()
        mask, log = op(center, width, 9.0, 50, inverse=inverse, backend=backend)
        # the log of an inverse mask near 0 has no digits in fp32: the centers in the test cases keep away from there
        outputs = (mask,) if inverse else (mask, log)
        sum(value.square().sum() for value in outputs).backward()
        results.append([value.detach().cpu().double() for value in (*outputs, center.grad, width.grad)])
    for got, expected in zip(*results, strict=True):
        assert_agree(op.name, got, expected, rtol=1e-4)


@pytest.mark.gpu
def test_the_compiled_exponent_agrees_with_the_equation_on_a_gpu() -> None:
    results = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        torch.manual_seed(0)
        leaves = [torch.rand(32, 28, device="cuda").to(dtype).requires_grad_() for _ in range(2)]
        exponent = gaussian_exponent(*leaves, 9.0, 50, backend=backend)
        (exponent * torch.linspace(-1, 2, 50, device="cuda")).sum().backward()
        results.append([x.detach().cpu().double() for x in (exponent, *(x.grad for x in leaves))])
    for got, expected in zip(*results, strict=True):
        assert_agree("exponent", got, expected, rtol=1e-5)


# kind of a golden mask -> op and constants; the paper's has no floor under the width
GOLDEN_KINDS = {
    "official": (gaussian_peak_mask, {}),
    "laplace": (laplace_mask, {}),
    "inverse": (gaussian_peak_mask, {"inverse": True}),
    "paper": (gaussian_mask, {"width_floor": 1e-30}),
    "cnm": (gaussian_mask, {"width_floor": 0.1}),
}


def _golden_masks() -> list[str]:
    with np.load(GOLDEN) as archive:
        return sorted({name.split("/")[1] for name in archive.files if name.startswith("mask/")})


@pytest.mark.parametrize("name", _golden_masks())
def test_the_kernel_is_equal_to_the_published_code(name: str, poisoned_empty: None) -> None:
    with np.load(GOLDEN) as archive:
        arrays = {entry.split("/")[2]: archive[entry] for entry in archive.files if entry.startswith(f"mask/{name}/")}
    kind = name.split("_", 1)[1]
    op, constants = GOLDEN_KINDS[kind]
    # what the file calls sigma is CNM's alpha, see the equation
    sigma = float(arrays["sigma"]) ** (0.5 if kind == "cnm" else 1)
    center, width = (torch.from_numpy(arrays[part]).float().requires_grad_() for part in ("center", "width"))
    mask, _ = op(center, width, sigma, int(arrays["n"]), **constants, backend="triton")
    (mask * torch.from_numpy(arrays["upstream"]).float()).sum().backward()
    assert_agree("mask", mask, arrays["mask"], atol=5e-6)
    # measured 2.2e-5: the file's centers and widths are rounded to fp32 first, which moves narrow masks
    assert_agree("gradient of center", center.grad, arrays["grad_center"], rtol=5e-5)
    assert_agree("gradient of width", width.grad, arrays["grad_width"], rtol=5e-5)
