"""Start and end of proposals: every backend against the loops, with all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pps_fast.ops.boundaries import boundaries
from pps_fast.ops.dispatch import BackendError
from pps_fast.proposals.layout import ramp
from tests.support.cases import CASES, Case, softmax_by_group
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, leaf, over_cases


@over_cases("boundaries")
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_loops(case: Case, dtype: torch.dtype) -> None:
    check_case(boundaries, "boundaries", case, dtype)


def test_strides_do_not_matter() -> None:
    check_non_contiguous(boundaries, CASES["boundaries"][1])


def test_backends_are_chosen_as_asked() -> None:
    check_backends(boundaries, CASES["boundaries"][0])


def test_boundaries_stay_in_the_video_and_shrink_by_their_share() -> None:
    group, ones = torch.arange(3), torch.ones(1, 3, dtype=torch.float64)
    center, width = leaf([[0.1, 0.5, 0.95]]), leaf([[0.4, 0.2, 0.3]])
    start, end = boundaries(center, width, ones, group, 3)
    assert_agree("start", start, torch.tensor([[0.0, 0.4, 0.8]]).double(), atol=1e-7)
    assert_agree("end", end, torch.tensor([[0.3, 0.6, 1.0]]).double(), atol=1e-7)
    start, end = boundaries(center, width, ones, group, 3, shrink=0.5)
    assert_agree("length", (end - start)[:, 1], leaf([0.1]), atol=1e-12)


@over_cases("boundaries")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(boundaries, "boundaries", case, dtype, backend="triton")


def _run(backend: str, tensors: list[torch.Tensor], *arguments: object) -> list[torch.Tensor]:
    """Results and gradients, for incoming gradients that are neither 1 nor contiguous."""
    wanted = [x.detach().requires_grad_() for x in tensors]
    results = boundaries(*wanted, *arguments, backend=backend)
    grads = []
    for index, value in enumerate(results):
        grad = torch.linspace(-2 - index, 3, value.numel(), dtype=value.dtype, device=value.device)
        grads.append(grad.reshape(value.shape).t().contiguous().t())
    torch.autograd.backward(results, grads)
    return [*(value.detach() for value in results), *(x.grad for x in wanted)]


def _assert_same(tensors: list[torch.Tensor], *arguments: object, rtol: float = 1e-6) -> None:
    got, expected = (_run(backend, tensors, *arguments) for backend in ("triton", "torch"))
    names = ("start", "end", "center", "width", "importance")
    for name, value, exact in zip(names, got, expected, strict=True):
        assert value.dtype == exact.dtype, name
        assert_agree(name, value, exact, rtol=rtol, atol=1e-7)


def _inputs(samples: int, components: int) -> list[torch.Tensor]:
    return [torch.rand(samples, components) for _ in range(3)]


@pytest.mark.parametrize("shrink", [0.0, 0.15])
@pytest.mark.parametrize("proposals", range(1, 8))
def test_the_kernel_takes_every_ramp(proposals: int, shrink: float, poisoned_empty: None) -> None:
    layout = ramp(proposals)
    center, width, score = _inputs(2, layout.num_components)
    weights = torch.from_numpy(softmax_by_group(score.numpy(), layout))
    _assert_same([center, width, weights], torch.tensor(layout.group), proposals, shrink)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    group=st.lists(st.integers(-1, 4), min_size=1, max_size=9),
    num_groups=st.integers(1, 5),
    shrink=st.sampled_from([0.0, 0.15, 0.9]),
    seed=st.integers(0, 2**16),
)
def test_the_kernel_takes_any_groups_in_any_order(group: list[int], num_groups: int, shrink: float, seed: int) -> None:
    """Those of no proposal and empty ones as well."""
    tensors = torch.rand(3, 2, len(group), generator=torch.Generator().manual_seed(seed))
    _assert_same([*tensors], torch.tensor(group), num_groups, shrink)


@pytest.mark.parametrize(("components", "num_groups"), [(1, 1), (64, 1), (64, 64), (5, 64)])
def test_the_kernel_takes_the_smallest_and_the_largest_sizes(
    components: int, num_groups: int, poisoned_empty: None
) -> None:
    center, width, weights = _inputs(3, components)
    group = torch.randint(num_groups, (components,))
    # a sum of 64 terms is rounded in another order
    _assert_same([center, width, weights / components], group, num_groups, 0.15, rtol=2e-6)


def test_the_kernel_passes_gradients_at_the_bounds_and_none_beyond_them(poisoned_empty: None) -> None:
    # start below, at and above 0, end below, at and above 1
    center = torch.tensor([[0.125, 0.25, 0.5, 0.5, 0.75, 0.875]])
    width = torch.tensor([[0.5, 0.5, 0.5, 1.0, 0.5, 0.5]])
    tensors, group = [center, width, torch.ones(1, 6)], torch.arange(6)
    _assert_same(tensors, group, 6)
    start, end, grad_center, *_ = _run("triton", tensors, group, 6)
    assert_agree("start", start, [[0.0, 0.0, 0.25, 0.0, 0.5, 0.625]])
    assert_agree("end", end, [[0.375, 0.5, 0.75, 1.0, 1.0, 1.0]])
    first, second = torch.linspace(-2, 3, 6), torch.linspace(-3, 3, 6)
    passes_start, passes_end = torch.tensor([0, 1, 1, 1, 1, 1]), torch.tensor([1, 1, 1, 1, 1, 0])
    assert_agree("gradient", grad_center[0], first * passes_start + second * passes_end, atol=1e-6)


@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float16, torch.float16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float16),
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
    ],
    ids=str,
)
def test_the_kernel_returns_the_dtypes_that_the_equation_does(dtypes: tuple[torch.dtype, ...]) -> None:
    tensors = [x.to(dtype) for x, dtype in zip(_inputs(2, 4), dtypes, strict=True)]
    # the equation rounds each step to these types, the kernel the results
    _assert_same(tensors, torch.tensor([0, 1, 1, 0]), 2, 0.15, rtol=2e-2)


def test_the_kernel_reads_any_strides_and_repeats_itself() -> None:
    packed, arguments = _inputs(3, 5), (torch.tensor([0, 0, 1, 1, 1]), 2, 0.15)
    strided = [torch.stack((x, x), -1).transpose(0, 1).contiguous().transpose(0, 1)[..., 0] for x in packed]
    assert not any(x.is_contiguous() for x in strided)
    expected = _run("triton", packed, *arguments)
    for _ in range(2):
        for got, first in zip(_run("triton", strided, *arguments), expected, strict=True):
            assert_agree("boundaries", got, first)


@pytest.mark.parametrize("argument", range(3))
def test_the_kernel_does_not_hide_what_is_not_a_number(argument: int) -> None:
    tensors = _inputs(2, 3)
    tensors[argument][0, 1] = float("nan")
    group = torch.tensor([0, 0, 5])
    got, expected = (boundaries(*tensors, group, 2, 0.1, backend=backend) for backend in ("triton", "torch"))
    for value, exact in zip(got, expected, strict=True):
        assert value[0].isnan().all() and exact[0].isnan().all()
        assert_agree("other sample", value[1], exact[1], atol=1e-7)


@pytest.mark.parametrize("index", [0, 1])
def test_one_result_alone_passes_its_gradient_back(index: int) -> None:
    tensors, grads = _inputs(2, 4), []
    for backend in ("triton", "torch"):
        wanted = [x.clone().requires_grad_() for x in tensors]
        boundaries(*wanted, torch.tensor([0, 1, 1, 1]), 2, 0.1, backend=backend)[index].sum().backward()
        grads.append([x.grad for x in wanted])
    for got, expected in zip(*grads, strict=True):
        assert_agree("gradient", got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"center": torch.rand(2, 3).double()}, "center is torch.float64; the kernel computes in float32"),
        (dict.fromkeys(("center", "width", "importance"), torch.rand(0, 3)), "the kernel takes no empty tensor"),
        (
            dict.fromkeys(("center", "width", "importance"), torch.rand(2, 65))
            | {"group": torch.zeros(65, dtype=torch.int64)},
            "center has 65 components",
        ),
        ({"num_groups": 0}, "num_groups = 0; the kernel needs at least 1"),
        ({"num_groups": 65}, "group has 65 proposals; the kernel takes 1 to 64"),
    ],
)
def test_the_kernel_refuses_what_it_cannot_bound(changes: dict, reason: str) -> None:
    inputs = dict.fromkeys(("center", "width", "importance"), torch.rand(2, 3))
    inputs |= {"group": torch.zeros(3, dtype=torch.int64), "num_groups": 1}
    assert not boundaries.reasons(**inputs)
    with pytest.raises(BackendError, match=reason):
        boundaries(**(inputs | changes), backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    group, ops, x = torch.tensor([0, 0, 1]), torch.ops.pps_fast, torch.rand(5, 2, 3)
    for operator, arguments in (
        (ops.boundaries_fwd, (*x[:3], group, 2, 0.1)),
        (ops.boundaries_bwd, (*x[3:, :, :2], *x[:3], group, 0.1)),
    ):
        # without tracing under autograd, which takes seconds for each: the operators have no autograd formula
        utils = ("test_schema", "test_autograd_registration", "test_faketensor")
        assert set(torch.library.opcheck(operator, arguments, test_utils=utils).values()) == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.parametrize(("components", "num_groups"), [(28, 7), (64, 64), (1, 1)])
@pytest.mark.parametrize("shrink", [0.0, 0.15])
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(components: int, num_groups: int, shrink: float) -> None:
    tensors = [x.cuda() for x in _inputs(32, components)]
    group = torch.arange(components, device="cuda") % num_groups
    got = _run("triton", tensors, group, num_groups, shrink)
    expected = _run("torch", [x.double() for x in tensors], group, num_groups, shrink)
    for value, exact in zip(got, expected, strict=True):
        assert_agree("boundaries", value.double(), exact, rtol=1e-5)


@pytest.mark.gpu
def test_the_compiled_kernel_does_not_hide_what_is_not_a_number() -> None:
    center = torch.tensor([[0.2, float("nan")]], device="cuda")
    ones = torch.ones_like(center)
    for value in boundaries(center, ones, ones, torch.tensor([0, 0], device="cuda"), 1, backend="triton"):
        assert value.isnan().all()
