"""Pulling and pushing losses: every backend against the loops, with all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pps_fast.equations import gaussian_exponent, gaussian_mask
from pps_fast.ops.dispatch import BackendError, Op
from pps_fast.ops.pull_push import pull_all, pull_distant, pull_middle, push
from pps_fast.proposals.layout import ramp
from tests.support.cases import CASES, Case
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, leaf

OPS = (
    pull_distant,
    pull_middle,
    pull_all,
    push,
)
PULLS = OPS[:3]
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in CASES[op.name]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype) -> None:
    check_case(op, "pull_push", case, dtype)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_strides_do_not_matter(op: Op) -> None:
    check_non_contiguous(op, CASES[op.name][1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_backends_are_chosen_as_asked(op: Op) -> None:
    check_backends(op, CASES[op.name][0])


def test_ops_are_named_after_their_equations() -> None:
    assert [op.name for op in OPS] == ["pull_distant", "pull_middle", "pull_all", "push"]


def test_pull_gives_the_gradient_of_a_tied_extreme_to_one_component() -> None:
    center = leaf([[0.2, 0.7, 0.2, 0.7, 0.5]])
    pull_distant(center, torch.zeros(5, dtype=torch.int64), 1).backward()
    assert sorted(center.grad[0].tolist()) == pytest.approx([-1.0, 0.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
def test_equal_centers_are_not_pulled_and_their_gradient_is_zero(pull: Op) -> None:
    center = torch.full((2, 6), 0.3, requires_grad=True)
    loss = pull(center, torch.tensor([0, 1, 1, 2, 2, 2]), 3)
    loss.backward()
    assert loss.item() == 0
    assert_agree("gradient", center.grad, torch.zeros(2, 6))


@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
def test_pull_ignores_proposals_of_one_component(pull: Op) -> None:
    center = torch.rand(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert pull(center, torch.arange(3), 3).item() == 0


def test_push_of_zero_rows_is_finite_with_finite_gradients() -> None:
    masks = torch.zeros(1, 3, 4)
    masks[0, 0] = 1
    masks.requires_grad_()
    loss = push(masks, torch.zeros(3, dtype=torch.int64), 0.15)
    loss.backward()
    # one row of quarters: (1/4 - 0.15)^2, and two zero rows: 0.15^2 each
    assert_agree("loss", loss, torch.tensor(0.1**2 + 2 * 0.15**2), atol=1e-7)
    assert torch.isfinite(masks.grad).all()


def test_push_without_rows_is_zero() -> None:
    loss = push(torch.zeros(2, 0, 4), torch.zeros(0, dtype=torch.int64), 0.15)
    assert loss.item() == 0


def test_push_does_not_see_other_groups() -> None:
    masks = torch.rand(1, 3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    group = torch.tensor([0, 1, 0])
    changed = masks.clone()
    changed[0, 1] = masks[0, 1].flip(0)
    assert_agree("push", push(changed, group, 0.15), push(masks, group, 0.15), atol=1e-15)
    assert push(masks, torch.zeros_like(group), 0.15) > push(masks, group, 0.15)


def _both(op: Op, x: torch.Tensor, *arguments: object, **options: object) -> tuple[list[torch.Tensor], ...]:
    """Loss and gradient, scaled, of the kernel and of the equation."""
    return tuple(_one(backend, op, x, *arguments, **options) for backend in ("triton", "torch"))


def _one(backend: str, op: Op, x: torch.Tensor, *arguments: object, **options: object) -> list[torch.Tensor]:
    """Loss and gradient, scaled."""
    wanted = x.detach().clone().requires_grad_()
    loss = op(wanted, *arguments, **options, backend=backend)
    (-2.5 * loss).backward()
    return [loss.detach(), wanted.grad]


def _assert_same(op: Op, x: torch.Tensor, *arguments: object, **options: object) -> None:
    got, expected = _both(op, x, *arguments, **options)
    assert got[0].dtype == expected[0].dtype and got[1].dtype == expected[1].dtype
    assert_agree(f"{op.name} loss", got[0], expected[0], rtol=1e-6)
    assert_agree(f"{op.name} gradient", got[1], expected[1], rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("op", "case"), EACH)
def test_the_kernel_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(op, "pull_push", case, dtype, backend="triton")


@pytest.mark.parametrize("normalize", [True, False], ids=["normalized", "plain"])
@pytest.mark.parametrize(
    ("rows", "num_positions"), [(1, 2), (3, 7), (7, 49), (28, 50), (17, 63), (7, 200), (64, 17), (2, 512)]
)
def test_the_kernel_pushes_odd_shapes(rows: int, num_positions: int, normalize: bool, poisoned_empty: None) -> None:
    masks = torch.rand(2, rows, num_positions)
    _assert_same(push, masks, torch.arange(rows) % 3, 0.15, normalize=normalize)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("proposals", range(1, 8))
def test_the_kernels_take_every_ramp(op: Op, proposals: int, poisoned_empty: None) -> None:
    layout = ramp(proposals)
    group = torch.tensor(layout.group)
    if op is push:
        _assert_same(push, torch.rand(1, layout.num_components, 12), group, 0.15)
    else:
        _assert_same(op, torch.rand(2, layout.num_components), group, proposals)


@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
def test_the_kernel_takes_components_in_any_order_and_64_of_them(pull: Op, poisoned_empty: None) -> None:
    group = torch.arange(64)[torch.randperm(64)] // 3
    _assert_same(pull, torch.rand(3, 64), group, 22)
    _assert_same(pull, torch.rand(3, 64), torch.zeros_like(group), 1)
    _assert_same(pull, torch.rand(3, 5), torch.tensor([1, 0, 1, 0, 1]), 2)


@st.composite
def _few_values(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Centers [2, E] of few values, so that there are ties, in groups of any order, none of them empty."""
    extra = draw(st.lists(st.integers(0, 2), max_size=7))
    group = draw(st.permutations([*range(max(extra, default=0) + 1), *extra]))
    values = st.lists(st.sampled_from([0.1, 0.25, 0.7, 0.9]), min_size=len(group), max_size=len(group))
    return torch.tensor([draw(values), draw(values)]), torch.tensor(group), max(group) + 1


@settings(derandomize=True, max_examples=25, deadline=None)
@given(drawn=_few_values(), pull=st.sampled_from(PULLS))
def test_the_kernel_pulls_ties_in_any_order_as_the_equation_does(
    drawn: tuple[torch.Tensor, torch.Tensor, int], pull: Op
) -> None:
    _assert_same(pull, *drawn)


@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
def test_the_kernel_gives_the_gradient_of_tied_centers_to_the_components_the_equation_does(pull: Op) -> None:
    center = torch.tensor([[0.2, 0.7, 0.2, 0.7, 0.5], [0.4, 0.4, 0.4, 0.4, 0.4], [0.9, 0.1, 0.1, 0.9, 0.9]])
    _assert_same(pull, center, torch.tensor([0, 0, 0, 0, 0]), 1)
    _assert_same(pull, center, torch.tensor([0, 0, 1, 1, 1]), 2)


def test_the_kernel_pulls_the_last_of_equal_maxima_the_first_of_equal_minima_and_the_lower_median() -> None:
    # in stable order: components 0, 3, 1, 4, 2, with 0.0, 0.0, 0.5, 0.5, 0.5
    for pull, expected in (
        (pull_distant, [-1.0, 0.0, 0.0, 0.0, 1.0]),
        # the middle is component 1, in which the last is tied as well
        (pull_middle, [-1.0, 1.0, 0.0, 0.0, 0.0]),
    ):
        center = torch.tensor([[0.0, 0.5, 0.5, 0.0, 0.5]], requires_grad=True)
        pull(center, torch.zeros(5, dtype=torch.int64), 1, backend="triton").backward()
        assert_agree(pull.name, center.grad, [expected])


@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
def test_the_kernel_takes_components_of_no_proposal_as_the_equation_does(pull: Op, poisoned_empty: None) -> None:
    # ends are of proposals, pairs of equal numbers
    group = torch.tensor([0, 5, 0, 1, -1, 5, -1, 1])
    center = torch.rand(2, 8)
    _assert_same(pull, center, group, 2)
    center[:, 1] = float("nan")
    losses = [pull(center, group, 2, backend=backend) for backend in ("triton", "torch")]
    assert losses[0].isnan() == losses[1].isnan() == (pull is pull_all)


@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
@pytest.mark.parametrize("component", range(4))
def test_the_kernel_does_not_hide_a_center_that_is_not_a_number(pull: Op, component: int) -> None:
    center = torch.tensor([[0.2, 0.6, 0.3, 0.4]])
    center[0, component] = float("nan")
    center.requires_grad_()
    loss = pull(center, torch.tensor([0, 1, 1, 1]), 2, backend="triton")
    loss.backward()
    assert loss.isnan() and center.grad.isnan().any()


def test_the_kernel_pushes_rows_that_vanish_or_lie_below_the_floor_of_their_sum(poisoned_empty: None) -> None:
    masks = torch.rand(2, 5, 9)
    masks[0, 1] = 0
    masks[0, 3] *= 1e-8
    masks[1, :3] *= 1e-30
    masks[1, 3:] *= 1e-38
    group = torch.tensor([0, 0, 0, 1, 1])
    got, expected = _both(push, masks, group, 0.15)
    assert_agree("loss", got[0], expected[0], rtol=1e-6)
    for row in range(5):
        for sample in range(2):
            # what is left of gradients of order 1 that cancel is divided by the row's sum
            atol = 1e-6 / max(masks[sample, row].sum().item(), 1e-37)
            assert_agree(f"gradient of {row}", got[1][sample, row], expected[1][sample, row], rtol=1e-5, atol=atol)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-7, 1e-20, 1e-36])
def test_rows_of_a_small_sum_are_still_brought_to_one(scale: float, backend: str) -> None:
    masks = torch.rand(2, 3, 9) + 0.1
    group = torch.tensor([0, 0, 0])
    # a row's sum has no say: 9 values of 0.1 to 1.1 at this scale sum to 1e-36 and more, ten times the floor
    expected = push(masks, group, 0.15, backend=backend)
    assert_agree("scaled", push(masks * scale, group, 0.15, backend=backend), expected, rtol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_exponents_give_what_masks_give_and_a_constant_per_row_changes_nothing(backend: str) -> None:
    masks, group = torch.rand(2, 5, 9) + 0.01, torch.tensor([0, 0, 0, 1, 1])
    expected = push(masks, group, 0.15, backend=backend)
    shift = torch.tensor([0.0, -50.0, -100.0, -1000.0, 30.0]).unsqueeze(-1)
    for exponents in (masks.log(), masks.log() + shift):
        # masks that underflow have no say
        got = push(masks * 0, group, 0.15, exponents=exponents, backend=backend)
        assert_agree("loss", got, expected, rtol=2e-5)
    plain = push(masks, group, 0.15, normalize=False, backend=backend)
    got = push(masks, group, 0.15, normalize=False, exponents=masks.log() - 1, backend=backend)
    assert_agree("exponents are not read without normalization", got, plain)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("has_exponents", [False, True], ids=["masks", "exponents"])
@pytest.mark.parametrize("width", [0.01, 0.015, 0.02, 0.022, 0.024, 0.026, 0.03, 0.04, 0.05])
def test_masks_that_vanish_between_two_positions_are_pushed_like_others(
    width: float, has_exponents: bool, backend: str
) -> None:
    """Two masks of Eq. (3) whose centers lie half way between positions, T = 50, sigma = 9.

    Each of their rows is (1/2, 1/2) at two positions, for every width below a position's distance, so that the loss is
    2 (1/2 - 0.15)^2 and does not depend on the width. Rows with a sum below 1e-6 were not divided by it before:

        width   sum of the row   loss before, now   largest gradient of a width before, now
        0.010   4.7e-37          0.0450   0.2450    1e-57    < 1e-3
        0.020   1.4e-9           0.0450   0.2450    1.2e-3   < 1e-3
        0.022   5.4e-8           0.0441   0.2450    1.4      < 1e-3
        0.024   8.7e-7           0.1083   0.2450    435      < 1e-3
        0.026   7.6e-6           0.2450   0.2450    3e-40    3e-40
        0.050   0.07             0.2450   0.2450    1e-9     1e-9
    """
    center = torch.tensor([[24.5 / 49, 30.5 / 49]])
    widths = torch.full((1, 2), width, requires_grad=True)
    masks, _ = gaussian_mask(center, widths, 9.0, 50)
    exponents = gaussian_exponent(center, widths, 9.0, 50) if has_exponents else None
    loss = push(masks, torch.zeros(2, dtype=torch.int64), 0.15, exponents=exponents, backend=backend)
    loss.backward()
    assert_agree("loss", loss, torch.tensor(0.245), atol=1e-5)
    # rounding of shares of 1/2, times d log(mask) / d width, which is up to 2e4
    assert widths.grad.abs().max() < 1e-3


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_kernel_reads_any_strides_and_repeats_itself(op: Op) -> None:
    packed = torch.rand(3, 5, 4) if op is push else torch.rand(3, 5)
    arguments = (torch.tensor([0, 0, 1, 1, 1]), 0.15 if op is push else 2)
    strided = torch.stack((packed, packed), -1).transpose(0, 1).contiguous().transpose(0, 1)[..., 0]
    assert not strided.is_contiguous()
    results = []
    for x in (packed, strided, strided):
        wanted = x.detach().requires_grad_()
        loss = op(wanted, *arguments, backend="triton")
        loss.backward()
        results.append((loss.detach(), wanted.grad))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert_agree(op.name, got, expected)


def test_two_backward_passes_add_up() -> None:
    masks = torch.rand(2, 3, 4, requires_grad=True)
    loss = push(masks, torch.zeros(3, dtype=torch.int64), 0.15, backend="triton")
    loss.backward(retain_graph=True)
    once = masks.grad.clone()
    (2 * loss).backward()
    assert_agree("gradient", masks.grad, 3 * once, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"masks": torch.rand(2, 3, 4, dtype=torch.float64)}, "masks is torch.float64; the kernel computes in float32"),
        ({"masks": torch.rand(0, 3, 4)}, "the kernel takes no empty tensor"),
        (
            {"masks": torch.rand(1, 65, 4), "group": torch.zeros(65, dtype=torch.int64)},
            "masks has 65 rows; the kernel takes 1 to 64",
        ),
        ({"masks": torch.rand(1, 3, 513)}, "masks has 513 positions; the kernel takes 1 to 512"),
    ],
)
def test_the_kernel_refuses_what_it_cannot_push(changes: dict, reason: str) -> None:
    inputs = {"masks": torch.rand(2, 3, 4), "group": torch.zeros(3, dtype=torch.int64), "target": 0.15, **changes}
    assert any(reason in sentence for sentence in push.reasons(**inputs))
    with pytest.raises(BackendError, match=reason):
        push(**inputs, backend="triton")


@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"center": torch.rand(2, 3).double()}, "center is torch.float64; the kernel computes in float32"),
        ({"center": torch.rand(0, 3)}, "the kernel takes no empty tensor"),
        (
            {"center": torch.rand(2, 65), "group": torch.zeros(65, dtype=torch.int64)},
            "center has 65 rows; the kernel takes 1 to 64",
        ),
    ],
)
def test_the_kernel_refuses_what_it_cannot_pull(pull: Op, changes: dict, reason: str) -> None:
    inputs = {"center": torch.rand(2, 3), "group": torch.zeros(3, dtype=torch.int64), "num_groups": 1}
    assert not pull.reasons(**inputs)
    inputs |= changes
    assert any(reason in sentence for sentence in pull.reasons(**inputs))
    with pytest.raises(BackendError, match=reason):
        pull(**inputs, backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    group, ops = torch.tensor([0, 0, 1]), torch.ops.pps_fast
    for operator, arguments in (
        *((ops.push_fwd, (torch.rand(2, 3, 4), group, 0.15, form, 1e-37)) for form in range(3)),
        *((ops.pull_fwd, (torch.rand(2, 3), group, 2, strategy)) for strategy in range(3)),
        (ops.pull_push_bwd, (torch.tensor(0.7), torch.rand(2, 3, 4))),
    ):
        # without tracing under autograd, which takes seconds for each: the operators have no autograd formula
        utils = ("test_schema", "test_autograd_registration", "test_faketensor")
        assert set(torch.library.opcheck(operator, arguments, test_utils=utils).values()) == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("rows", "num_positions"), [(28, 50), (7, 50), (64, 512)])
def test_the_compiled_push_agrees_with_the_equation_on_a_gpu(rows: int, num_positions: int, normalize: bool) -> None:
    masks, group = torch.rand(32, rows, num_positions, device="cuda"), torch.arange(rows, device="cuda") // 4
    got = _one("triton", push, masks, group, 0.15, normalize=normalize)
    expected = _one("torch", push, masks.double(), group, 0.15, normalize=normalize)
    for name, value, exact in zip(("loss", "gradient"), got, expected, strict=True):
        assert_agree(name, value.double(), exact, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
def test_the_compiled_pull_agrees_with_the_equation_on_a_gpu(pull: Op) -> None:
    for center, layout in ((torch.rand(32, 28, device="cuda"), ramp(7)), (torch.rand(32, 55, device="cuda"), ramp(10))):
        # few values, so that there are ties
        for x in (center, (8 * center).round() / 8):
            got, expected = _both(pull, x, torch.tensor(layout.group, device="cuda"), layout.num_proposals)
            for name, value, exact in zip(("loss", "gradient"), got, expected, strict=True):
                assert_agree(name, value, exact, rtol=2e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("pull", PULLS, ids=lambda op: op.name)
def test_the_compiled_pull_does_not_hide_a_center_that_is_not_a_number(pull: Op) -> None:
    center = torch.tensor([[0.2, 0.6, float("nan"), 0.4]], device="cuda")
    assert pull(center, torch.tensor([0, 1, 1, 1], device="cuda"), 2, backend="triton").isnan()
