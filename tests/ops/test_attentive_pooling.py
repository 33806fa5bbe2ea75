"""From component masks to proposals: every backend against the loops, with all gradients."""

from __future__ import annotations

import math

import pytest
import torch

from pps_fast.equations import log_mask
from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.ops.dispatch import BackendError, Op
from pps_fast.ops.gaussian_mask import gaussian_mask
from pps_fast.proposals.layout import ramp
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, leaf, values_of

OPS = (
    importance,
    mixture,
    peak_mixture,
)
FUSED = OPS
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in CASES[op.name]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype) -> None:
    check_case(op, "attentive_pooling", case, dtype)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_strides_do_not_matter(op: Op) -> None:
    check_non_contiguous(op, CASES[op.name][1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_backends_are_chosen_as_asked(op: Op) -> None:
    check_backends(op, CASES[op.name][0])


def test_ops_are_named_after_their_equations() -> None:
    assert [op.name for op in OPS] == ["importance", "mixture", "peak_mixture"]


def test_sums_of_vanishing_masks_stay_zero_and_others_have_their_peak_at_one() -> None:
    masks = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0))
    masks[0, 1:3] = 0
    masks.requires_grad_()
    got, log = peak_mixture(masks, torch.tensor([0, 1, 1, 2]), 3)
    assert_agree("vanished", got[:, 1], torch.zeros(1, 5))
    assert_agree("log", log[:, 1], torch.full((1, 5), math.log(1e-10)), rtol=1e-6)
    assert_agree("peak", got[:, ::2].amax(-1), torch.ones(1, 2))
    ((got + log) * torch.linspace(1, 2, 5)).sum().backward()
    assert torch.isfinite(masks.grad).all()


def test_tied_peaks_of_a_mixture_take_the_gradient_at_the_first() -> None:
    masks = leaf([[[1.0, 2.0, 2.0], [0.5, 1.0, 1.0]]])
    got, _ = peak_mixture(masks, torch.tensor([0, 0]), 1)
    got.sum().backward()
    # d sum / d n_t = 1 / peak, minus sum / peak^2 at the first arg-max: 1/3 and 7.5 / 9
    expected = torch.tensor([1 / 3, 1 / 3 - 7.5 / 9, 1 / 3], dtype=torch.float64)
    assert_agree("gradient", masks.grad, expected.expand(1, 2, 3), atol=1e-14)


def test_mixture_of_one_component_is_the_component() -> None:
    masks = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    logs = log_mask(masks)
    for backend in ("torch", "triton"):
        got, log = mixture(masks, logs, torch.ones(2, 3), torch.arange(3), 3, backend=backend)
        assert_agree("mixture", got, masks)
        assert_agree("log", log, logs, atol=1e-6)


def test_importance_of_a_component_alone_is_one_and_large_scores_stay_finite() -> None:
    score = torch.tensor([[1e4, -1e4, 1e4, 5.0]])
    got = importance(score, torch.tensor([0, 1, 1, 2]), 3)
    assert_agree("importance", got, torch.tensor([[1.0, 0.0, 1.0, 1.0]]))


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(("num_positions", "sigma"), [(50, 9.0), (16, 9.0), (16, 4.0)])
def test_sums_of_narrow_masks_between_positions_pass_finite_gradients_back(
    num_positions: int, sigma: float, backend: str
) -> None:
    """Such a sum may be as small as 1e-35; 1 / peak times a log's gradient of 1e10 must not overflow fp32."""
    offset, width = torch.meshgrid(
        torch.tensor([0.3, 0.4, 0.45, 0.5]), torch.tensor([0.005, 0.01, 0.015, 0.02, 0.03]), indexing="ij"
    )
    group = torch.arange(20).repeat_interleave(3)
    center = ((num_positions // 2 + offset) / (num_positions - 1)).reshape(1, 20)[:, group].requires_grad_()
    width = width.reshape(1, 20)[:, group].requires_grad_()
    masks, _ = gaussian_mask(center, width, sigma, num_positions, backend=backend)
    _, log = peak_mixture(masks, group, 20, backend=backend)
    (log * torch.linspace(-1, 1, num_positions)).sum().backward()
    for name, leaf_grad in (("center", center.grad), ("width", width.grad)):
        bad = int((~torch.isfinite(leaf_grad)).sum())
        assert bad == 0, f"{bad} of {leaf_grad.numel()} gradients of the {name} are not finite"


EACH_FUSED = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in FUSED for case in CASES[op.name]]


def _run(op: Op, backend: str, tensors: list[torch.Tensor], group: torch.Tensor, num_groups: int) -> list[torch.Tensor]:
    """Results and gradients, for incoming gradients that are neither 1 nor contiguous nor the same for all results."""
    wanted = [x.detach().requires_grad_() for x in tensors]
    results = values_of(op(*wanted, group, num_groups, backend=backend))
    grads = []
    for index, result in enumerate(results):
        # rounded, so that it is the same for results of any precision
        grad = torch.linspace(-2, 3 + index, result.numel(), device=result.device).to(result.dtype)
        grads.append(grad.reshape(result.shape).transpose(0, 1).contiguous().transpose(0, 1))
    torch.autograd.backward(results, grads)
    return [*(result.detach() for result in results), *(x.grad for x in wanted)]


def _assert_same(op: Op, tensors: list[torch.Tensor], group: torch.Tensor, num_groups: int) -> None:
    got, expected = (_run(op, backend, tensors, group, num_groups) for backend in ("triton", "torch"))
    for index, (value, exact) in enumerate(zip(got, expected, strict=True)):
        assert value.dtype == exact.dtype
        # where the gradient of a component alone is 0, rounding is not
        assert_agree(f"{op.name} {index}", value, exact, rtol=2e-6, atol=1e-6)


def _inputs(op: Op, samples: int, components: int, num_positions: int) -> list[torch.Tensor]:
    masks, weights = 0.01 + torch.rand(samples, components, num_positions), torch.rand(samples, components)
    mixed = [masks, log_mask(masks), weights]
    return {"importance": [3 * weights - 1], "mixture": mixed, "peak_mixture": [masks]}[op.name]


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("op", "case"), EACH_FUSED)
def test_the_kernel_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(op, "attentive_pooling", case, dtype, backend="triton")


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
@pytest.mark.parametrize("proposals", range(1, 8))
def test_the_kernels_take_every_ramp(op: Op, proposals: int, poisoned_empty: None) -> None:
    layout = ramp(proposals)
    _assert_same(op, _inputs(op, 2, layout.num_components, 5), torch.tensor(layout.group), proposals)


@pytest.mark.parametrize("op", [mixture, peak_mixture], ids=lambda op: op.name)
@pytest.mark.parametrize(
    ("samples", "components", "num_positions"),
    [(1, 1, 1), (2, 1, 2), (3, 5, 7), (2, 28, 49), (1, 9, 63), (2, 7, 200), (1, 64, 33), (1, 19, 512)],
)
def test_the_kernels_mix_odd_shapes(
    op: Op, samples: int, components: int, num_positions: int, poisoned_empty: None
) -> None:
    group = torch.arange(components) % 3
    _assert_same(op, _inputs(op, samples, components, num_positions), group, 3)


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_the_kernels_leave_out_components_of_no_proposal_and_take_empty_proposals(op: Op, poisoned_empty: None) -> None:
    _assert_same(op, _inputs(op, 2, 5, 4), torch.tensor([0, 3, 0, 2, -1]), 3)


@pytest.mark.parametrize("op", [mixture, peak_mixture], ids=lambda op: op.name)
@pytest.mark.parametrize("index", [0, 1])
def test_either_result_may_be_left_without_gradient(op: Op, index: int, poisoned_empty: None) -> None:
    results, group = [], torch.tensor([0, 0, 1, 1, 1])
    inputs = _inputs(op, 2, 5, 4)
    for backend in ("triton", "torch"):
        wanted = [x.detach().requires_grad_() for x in inputs]
        op(*wanted, group, 2, backend=backend)[index].square().sum().backward()
        # the equation leaves out what has no gradient, the kernel writes zeros
        results.append([torch.zeros_like(x) if x.grad is None else x.grad for x in wanted])
    for got, expected in zip(*results, strict=True):
        assert_agree(op.name, got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_the_kernels_read_any_strides_and_repeat_themselves(op: Op) -> None:
    packed, group = _inputs(op, 3, 5, 4), torch.tensor([0, 0, 1, 1, 1])
    strided = [torch.stack((x, x), -1).transpose(0, 1).contiguous().transpose(0, 1)[..., 0] for x in packed]
    assert not any(x.is_contiguous() for x in strided)
    expected = _run(op, "triton", packed, group, 2)
    for _ in range(2):
        for got, first in zip(_run(op, "triton", strided, group, 2), expected, strict=True):
            assert_agree(op.name, got, first)


def test_the_kernel_keeps_large_scores_finite() -> None:
    score = torch.tensor([[1e4, -1e4, 1e4, 5.0]])
    got = importance(score, torch.tensor([0, 1, 1, 2]), 3, backend="triton")
    assert_agree("importance", got, torch.tensor([[1.0, 0.0, 1.0, 1.0]]))


def test_the_kernel_gives_the_gradient_of_tied_peaks_to_the_first() -> None:
    masks = torch.tensor([[[1.0, 2.0, 2.0], [0.5, 1.0, 1.0]]])
    _assert_same(peak_mixture, [masks], torch.tensor([0, 0]), 1)
    _assert_same(peak_mixture, [masks], torch.tensor([0, 1]), 2)


def test_the_kernel_has_peaks_of_exactly_one_and_leaves_vanishing_sums_near_zero(poisoned_empty: None) -> None:
    masks = torch.rand(2, 4, 7)
    masks[0, 1:3] = 0
    masks[1, 1:3] *= 1e-25
    group = torch.tensor([0, 1, 1, 2])
    got, expected = (_run(peak_mixture, backend, [masks], group, 3) for backend in ("triton", "torch"))
    for sample in range(2):
        assert_agree("mixture", got[0][sample], expected[0][sample], rtol=1e-6)
        assert_agree("log", got[1][sample], expected[1][sample], atol=1e-5)
        for component in range(4):
            # where the sum vanishes, the gradient is of order 1e20, and of its log 1e30
            kernel, exact = got[2][sample, component], expected[2][sample, component]
            assert_agree(f"gradient of {component}", kernel, exact, rtol=1e-5, atol=1e-6)
    assert_agree("peak", got[0][:, ::2].amax(-1), torch.ones(2, 2))
    assert got[0][1, 1].max() < 1e-4


@pytest.mark.parametrize(
    ("op", "changes", "reason"),
    [
        (importance, {"score": torch.rand(2, 3).double()}, "score is torch.float64; the kernel computes in float32"),
        (
            importance,
            {"score": torch.rand(2, 65), "group": torch.zeros(65, dtype=torch.int64)},
            "score has 65 components; the kernel takes 1 to 64",
        ),
        (importance, {"num_groups": 0}, "num_groups = 0; the kernel needs at least 1"),
        (
            mixture,
            dict.fromkeys(("masks", "log_masks"), torch.rand(2, 3, 600)),
            "masks has 600 positions; the kernel takes 1 to 512",
        ),
        (mixture, {"importance": torch.rand(2, 3).double()}, "importance is torch.float64; the kernel computes in"),
        (peak_mixture, {"masks": torch.rand(0, 3, 4)}, "the kernel takes no empty tensor"),
    ],
)
def test_the_kernels_refuse_what_they_cannot_pool(op: Op, changes: dict, reason: str) -> None:
    tensors = {"score": torch.rand(2, 3), "masks": torch.rand(2, 3, 4), "importance": torch.rand(2, 3)}
    tensors["log_masks"] = tensors["masks"].log()
    mixed = ["masks", "log_masks", "importance"]
    names = {"importance": ["score"], "mixture": mixed, "peak_mixture": ["masks"]}[op.name]
    inputs = {name: tensors[name] for name in names} | {"group": torch.zeros(3, dtype=torch.int64), "num_groups": 1}
    assert not op.reasons(**inputs)
    inputs |= changes
    assert any(reason in sentence for sentence in op.reasons(**inputs))
    with pytest.raises(BackendError, match=reason):
        op(**inputs, backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    group, masks, weights, mixed = torch.tensor([0, 0, 1]), torch.rand(2, 3, 4), torch.rand(2, 3), torch.rand(2, 2, 4)
    for name, arguments in {
        "importance_fwd": (weights, group, 2),
        "importance_bwd": (weights, weights.flip(0), group, 2),
        "mixture_fwd": (masks, weights, group, 2),
        "mixture_bwd": (mixed, mixed.flip(0), masks, weights, group, mixed.log()),
        "peak_mixture_fwd": (masks, group, 2, 1e-20),
        "peak_mixture_bwd": (mixed, mixed + 1, mixed.flip(0), torch.ones(2, 2), torch.zeros(2, 2), group, 1e-20),
    }.items():
        # without tracing under autograd, which takes seconds for each: the operators have no autograd formula
        utils = ("test_schema", "test_autograd_registration", "test_faketensor")
        results = torch.library.opcheck(getattr(torch.ops.pps_fast, name), arguments, test_utils=utils)
        assert set(results.values()) == {"SUCCESS"}, name


@pytest.mark.gpu
@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
@pytest.mark.parametrize(("components", "num_positions"), [(28, 50), (64, 512)])
def test_the_compiled_kernels_agree_with_the_equations_on_a_gpu(op: Op, components: int, num_positions: int) -> None:
    tensors = [x.cuda() for x in _inputs(op, 32, components, num_positions)]
    group = torch.arange(components, device="cuda") // 4
    got = _run(op, "triton", tensors, group, components // 4)
    expected = _run(op, "torch", [x.double() for x in tensors], group, components // 4)
    for value, exact in zip(got, expected, strict=True):
        # where the gradient of a component alone is 0, rounding is not
        assert_agree(op.name, value.double(), exact, rtol=1e-5, atol=1e-6)
