"""Pulling and pushing losses: every backend against the loops, with all gradients."""

from __future__ import annotations

import pytest
import torch

from pps_fast.backend import Op
from pps_fast.ops.pull_push import pull_all, pull_distant, pull_middle, push
from tests.cases import CASES, Case
from tests.compare import assert_agree
from tests.ops.check import DTYPES, check_backends, check_case, check_non_contiguous, leaf

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
