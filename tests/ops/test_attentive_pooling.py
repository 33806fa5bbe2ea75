"""From component masks to proposals: every backend against the loops, with all gradients."""

from __future__ import annotations

import pytest
import torch

from pps_fast.backend import Op
from pps_fast.ops.attentive_pooling import boundaries, importance, mixture, peak_mixture
from pps_fast.ops.gaussian_mask import gaussian_mask
from tests.cases import CASES, Case
from tests.compare import assert_agree
from tests.ops.check import DTYPES, check_backends, check_case, check_non_contiguous, leaf

OPS = (
    importance,
    mixture,
    peak_mixture,
    boundaries,
)
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
    assert [op.name for op in OPS] == ["importance", "mixture", "peak_mixture", "boundaries"]


def test_sums_of_vanishing_masks_stay_zero_and_others_have_their_peak_at_one() -> None:
    masks = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0))
    masks[0, 1:3] = 0
    masks.requires_grad_()
    got = peak_mixture(masks, torch.tensor([0, 1, 1, 2]), 3)
    assert_agree("vanished", got[:, 1], torch.zeros(1, 5))
    assert_agree("peak", got[:, ::2].amax(-1), torch.ones(1, 2))
    (got * torch.linspace(1, 2, 5)).sum().backward()
    assert torch.isfinite(masks.grad).all()


def test_tied_peaks_of_a_mixture_take_the_gradient_at_the_first() -> None:
    masks = leaf([[[1.0, 2.0, 2.0], [0.5, 1.0, 1.0]]])
    got = peak_mixture(masks, torch.tensor([0, 0]), 1)
    got.sum().backward()
    # d sum / d n_t = 1 / peak, minus sum / peak^2 at the first arg-max: 1/3 and 7.5 / 9
    expected = torch.tensor([1 / 3, 1 / 3 - 7.5 / 9, 1 / 3], dtype=torch.float64)
    assert_agree("gradient", masks.grad, expected.expand(1, 2, 3), atol=1e-14)


def test_mixture_of_one_component_is_the_component() -> None:
    masks = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    got = mixture(masks, torch.ones(2, 3), torch.arange(3), 3)
    assert_agree("mixture", got, masks)


def test_importance_of_a_component_alone_is_one_and_large_scores_stay_finite() -> None:
    score = torch.tensor([[1e4, -1e4, 1e4, 5.0]])
    got = importance(score, torch.tensor([0, 1, 1, 2]), 3)
    assert_agree("importance", got, torch.tensor([[1.0, 0.0, 1.0, 1.0]]))


def test_boundaries_stay_in_the_video_and_shrink_by_their_share() -> None:
    group, ones = torch.arange(3), torch.ones(1, 3, dtype=torch.float64)
    center, width = leaf([[0.1, 0.5, 0.95]]), leaf([[0.4, 0.2, 0.3]])
    start, end = boundaries(center, width, ones, group, 3)
    assert_agree("start", start, torch.tensor([[0.0, 0.4, 0.8]]).double(), atol=1e-7)
    assert_agree("end", end, torch.tensor([[0.3, 0.6, 1.0]]).double(), atol=1e-7)
    start, end = boundaries(center, width, ones, group, 3, shrink=0.5)
    assert_agree("length", (end - start)[:, 1], leaf([0.1]), atol=1e-12)


@pytest.mark.parametrize(("num_positions", "sigma"), [(50, 9.0), (16, 9.0), (16, 4.0)])
def test_sums_of_narrow_masks_between_positions_pass_finite_gradients_back(num_positions: int, sigma: float) -> None:
    """Such a sum may be as small as 1e-35; 1 / peak times an attention's gradient of 1e10 must not overflow fp32."""
    offset, width = torch.meshgrid(
        torch.tensor([0.3, 0.4, 0.45, 0.5]), torch.tensor([0.005, 0.01, 0.015, 0.02, 0.03]), indexing="ij"
    )
    group = torch.arange(20).repeat_interleave(3)
    center = ((num_positions // 2 + offset) / (num_positions - 1)).reshape(1, 20)[:, group].requires_grad_()
    width = width.reshape(1, 20)[:, group].requires_grad_()
    summed = peak_mixture(gaussian_mask(center, width, sigma, num_positions), group, 20)
    (torch.log(summed + 1e-10) * torch.linspace(-1, 1, num_positions)).sum().backward()
    for name, leaf_grad in (("center", center.grad), ("width", width.grad)):
        bad = int((~torch.isfinite(leaf_grad)).sum())
        assert bad == 0, f"{bad} of {leaf_grad.numel()} gradients of the {name} are not finite"
