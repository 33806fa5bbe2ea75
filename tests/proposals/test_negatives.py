"""Every kind of easy negative against its loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pps_fast.proposals.layout import layout_of
from pps_fast.proposals.negatives import NEGATIVES, NegativeInput
from tests.support import oracles
from tests.support.cases import randomize, small_config
from tests.support.compare import assert_agree
from tests.support.oracles_model import apart_side_negatives, inverse_negatives, side_negatives

POSITIONS = 13
LEARNED = ("learned", "learned_inverse")
HULL = ("inverse", "sides", "sides_saturated")
# one of each sample, as no training has, to see that each counts
PROGRESS = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=torch.float64)


def _case(kind: str, **changes) -> tuple[nn.Module, NegativeInput, tuple[Tensor, Tensor]]:
    """A module, its input, and the masks and logs it makes."""
    single = {"proposals__layout": "uniform"} if kind == "complement" else {}
    config = small_config(proposals__negatives__kind=kind, proposals__negatives__sigma=5.0, **single | changes)
    module = randomize(NEGATIVES[kind](config).double())
    rng = np.random.default_rng(3)
    shape = (4, layout_of(config.proposals).num_components)
    inputs = NegativeInput(
        g_cls=torch.from_numpy(rng.normal(size=(4, config.encoder.hidden_dim))),
        center=torch.from_numpy(rng.uniform(0.1, 0.9, shape)).requires_grad_(),
        width=torch.from_numpy(rng.uniform(0.1, 0.6, shape)).requires_grad_(),
        num_positions=POSITIONS,
        progress=PROGRESS,
    )
    return module, inputs, module(inputs)


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("mask_shape", ["gaussian", "gaussian_peak", "laplace"])
def test_learned_negatives_are_sums_of_their_own_masks_over_the_peak(kind: str, mask_shape: str) -> None:
    module, inputs, results = _case(kind, proposals__negatives__mask_shape=mask_shape)
    center, width = (value.detach().numpy() for value in module.head(inputs.g_cls))
    draw = getattr(oracles, mask_shape if mask_shape == "laplace_mask" else f"{mask_shape}_mask")
    masks, _ = draw(center, width, 5.0, POSITIONS, inverse=kind == "learned_inverse")
    group = np.repeat(np.arange(3), 3)
    assert masks.shape[1] == 9
    for got, expected in zip(results, oracles.peak_mixture(oracles.ragged(masks, group)), strict=True):
        assert_agree("negative", got, expected, atol=1e-12)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_peak_of_learned_negatives_is_exactly_one(kind: str) -> None:
    _, _, (got, log) = _case(kind)
    assert_agree("peak", got.amax(-1), torch.ones(4, 3))
    assert (got >= 0).all()
    assert_agree("log of the peak", log.amax(-1), torch.zeros(4, 3), atol=1e-9)


def test_components_of_learned_negatives_have_their_own_widths() -> None:
    module, inputs, _ = _case("learned", proposals__negatives__num_components=2)
    width = module.head(inputs.g_cls)[1]
    assert width.shape == (4, 6)
    assert (width[:, ::2] != width[:, 1::2]).all()


@pytest.mark.parametrize("layout", ["ramp", "uniform"])
@pytest.mark.parametrize("kind", HULL)
def test_negatives_around_the_hull_agree_with_the_loops(kind: str, layout: str) -> None:
    changes = {"proposals__layout": layout, "proposals__components_per_proposal": 2}
    _, inputs, (got, log) = _case(kind, **changes)
    group = np.array(layout_of(small_config(**changes).proposals).group)
    center, width = (oracles.ragged(value.detach().numpy(), group) for value in (inputs.center, inputs.width))
    if kind == "inverse":
        expected = inverse_negatives(center, width, 5.0, POSITIONS)
    else:
        expected = side_negatives(center, width, 5.0, POSITIONS, saturated=kind == "sides_saturated")
    assert_agree(kind, got, expected, atol=1e-12)
    assert_agree(f"log of {kind}", log, np.log(expected + 1e-10), atol=1e-10)


@pytest.mark.parametrize("curriculum", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("layout", ["ramp", "uniform"])
def test_negatives_on_two_sides_agree_with_the_loops(layout: str, curriculum: float) -> None:
    changes = {"proposals__layout": layout, "proposals__negatives__curriculum": curriculum}
    module, inputs, (got, log) = _case("sides_apart", **changes)
    assert module.num_per_proposal == 2 and got.shape == (4, 6, POSITIONS)
    group = np.array(layout_of(small_config(**changes).proposals).group)
    center, width = (oracles.ragged(value.detach().numpy(), group) for value in (inputs.center, inputs.width))
    expected = apart_side_negatives(center, width, 5.0, POSITIONS, PROGRESS.tolist(), curriculum)
    assert_agree("sides", got, expected, atol=1e-12)
    assert_agree("logs", log, np.log(expected + 1e-10), atol=1e-10)


def test_the_two_sides_start_at_the_ends_of_the_video_and_come_in() -> None:
    _, _, (got, _) = _case("sides_apart", proposals__negatives__curriculum=1.0)
    steps = torch.linspace(0, 1, POSITIONS, dtype=torch.float64)
    centroid = (got * steps).sum(-1) / got.sum(-1)
    left, right = centroid[:, ::2], centroid[:, 1::2]
    assert (left[0] < 1e-3).all() and (right[0] > 1 - 1e-3).all()
    assert (left < right).all()


@pytest.mark.parametrize("mask_shape", ["gaussian", "gaussian_peak", "laplace"])
def test_a_complement_is_one_minus_the_proposal(mask_shape: str) -> None:
    _, inputs, (got, log) = _case("complement", proposals__mask_shape=mask_shape)
    center, width = inputs.center.detach().numpy(), inputs.width.detach().numpy()
    options = small_config().proposals
    expected, _ = getattr(oracles, f"{mask_shape}_mask")(center, width, options.sigma, POSITIONS, inverse=True)
    assert_agree("complement", got, expected, atol=1e-12)
    assert_agree("log", log, np.log(expected + 1e-10), atol=1e-10)


@pytest.mark.parametrize("kind", ["sides_apart", "complement"])
def test_negatives_of_the_ancestors_have_no_parameters_and_move_with_the_positives(kind: str) -> None:
    module, inputs, results = _case(kind)
    assert list(module.parameters()) == []
    for result in results:
        total = (result * torch.linspace(0, 1, POSITIONS)).sum()
        for grad in torch.autograd.grad(total, (inputs.center, inputs.width), retain_graph=True):
            assert torch.isfinite(grad).all() and (grad != 0).any()


@pytest.mark.parametrize("kind", HULL)
def test_negatives_around_the_hull_have_no_parameters_and_move_with_the_positives(kind: str) -> None:
    module, inputs, results = _case(kind)
    assert list(module.parameters()) == []
    for result in results:
        total = (result * torch.linspace(0, 1, POSITIONS)).sum()
        grads = torch.autograd.grad(total, (inputs.center, inputs.width), retain_graph=True)
        for grad in grads:
            assert torch.isfinite(grad).all()
            assert (grad != 0).any()


@pytest.mark.parametrize("kind", ["sides", "sides_saturated"])
def test_a_hull_over_the_whole_video_leaves_finite_negatives_and_gradients(kind: str) -> None:
    module, inputs, _ = _case(kind)
    center = torch.full_like(inputs.center, 0.5, dtype=torch.float32).requires_grad_()
    width = torch.full_like(center, 0.999999).requires_grad_()
    got, log = module(
        NegativeInput(g_cls=inputs.g_cls, center=center, width=width, num_positions=POSITIONS, progress=PROGRESS)
    )
    (got + log).sum().backward()
    assert ((got >= 0) & (got <= 2)).all()
    assert torch.isfinite(torch.stack((center.grad, width.grad))).all()


@pytest.mark.parametrize("kind", sorted(NEGATIVES))
def test_no_negative_depends_on_the_other_samples(kind: str) -> None:
    module, inputs, together = _case(kind)
    alone = NegativeInput(
        g_cls=inputs.g_cls[2:3],
        center=inputs.center[2:3],
        width=inputs.width[2:3],
        num_positions=POSITIONS,
        progress=PROGRESS[2:3],
    )
    for got, result in zip(module(alone), together, strict=True):
        assert_agree("alone", got, result[2:3], atol=1e-14)
