"""Label-smoothed cross-entropy of the reconstructed sentence: every backend against the loops, with all gradients."""

from __future__ import annotations

import math

import pytest
import torch

from pps_fast.backend import Op
from pps_fast.ops.reconstruction_nll import reconstruction_nll
from tests.cases import CASES, Case
from tests.compare import assert_agree
from tests.ops.check import DTYPES, check_backends, check_case, check_non_contiguous

OPS = (reconstruction_nll,)
EACH = [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in CASES[op.name]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "case"), EACH)
def test_agrees_with_the_loops(op: Op, case: Case, dtype: torch.dtype) -> None:
    check_case(op, "reconstruction_nll", case, dtype)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_strides_do_not_matter(op: Op) -> None:
    check_non_contiguous(op, CASES[op.name][1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_backends_are_chosen_as_asked(op: Op) -> None:
    check_backends(op, CASES[op.name][0])


def test_ops_are_named_after_their_equations() -> None:
    assert [op.name for op in OPS] == ["reconstruction_nll"]


def test_nll_of_a_uniform_prediction_is_log_v_whatever_the_smoothing() -> None:
    targets, is_target = torch.tensor([[3, 0]]), torch.tensor([[True, False]])
    for smoothing in (0.0, 0.1, 0.9):
        got = reconstruction_nll(torch.zeros(1, 2, 2, 7), targets, is_target, smoothing)
        assert_agree("nll", got, torch.full((1, 2), math.log(7)), rtol=1e-6)


def test_nll_does_not_see_columns_without_target() -> None:
    logits = torch.randn(1, 1, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets, is_target = torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]])
    reconstruction_nll(logits, targets, is_target, 0.1).sum().backward()
    assert_agree("gradient", logits.grad[0, 0, 1], torch.zeros(5))
    assert (logits.grad[0, 0, [0, 2]] != 0).all()
