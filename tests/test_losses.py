"""The terms, their weights, and what is not computed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pps_fast import losses as module
from pps_fast.config import LossesConfig, PPSConfig
from pps_fast.losses import LOSS_TERMS, PULL_STRATEGIES, Objective, contrastive, reconstruction_per_sample
from pps_fast.proposals.layout import layout_of
from pps_fast.types import ModelOutput
from tests.support import oracles
from tests.support.cases import small_config
from tests.support.compare import assert_agree
from tests.support.outputs import random_output

CENTER = torch.tensor([[0.5, 0.1, 0.3, 0.9, 0.4]], dtype=torch.float64)
GROUP = torch.tensor([0, 1, 1, 1, 1])
WEIGHTS = dict(zip(LOSS_TERMS, (0.5, 3.0, 5.0, 0.7, 1.1, 0.9), strict=True))


@pytest.mark.parametrize("num_best", [1, 2, 3])
def test_reconstruction_agrees_with_the_loops_over_all_positives(num_best: int) -> None:
    output = random_output(num_samples=6, num_best=num_best)
    arrays = [value.detach().numpy() for value in (output.positive_nll, output.whole_video_nll)]
    got = reconstruction_per_sample(output)
    assert_agree("rec", got, oracles.reconstruction_loss(*arrays, num_best), atol=1e-14)


@pytest.mark.parametrize("num_best", [1, 2])
def test_only_the_best_positives_and_the_whole_video_are_trained(num_best: int) -> None:
    output = random_output(num_samples=6, num_best=num_best)
    reconstruction_per_sample(output).sum().backward()
    assert_agree("best", output.best_nll.grad, torch.full((6, num_best), 1 / num_best))
    assert_agree("whole video", output.whole_video_nll.grad, torch.ones(6))
    assert output.negative_nll.grad is None and output.positive_nll.grad is None


@pytest.mark.parametrize("num_negatives", [1, 2])
@pytest.mark.parametrize("num_best", [1, 2, 3])
@pytest.mark.parametrize("margins", [(0.1, 0.15), (0.0, 0.7)])
def test_contrastive_agrees_with_the_loops(num_best: int, num_negatives: int, margins: tuple[float, float]) -> None:
    output = random_output(num_samples=8, num_best=num_best, num_negatives=num_negatives)
    options = LossesConfig(num_best=num_best, whole_video_margin=margins[0], negative_margin=margins[1])
    fields = (output.best_nll, output.whole_video_nll, output.negative_nll)
    arrays = [value.detach().numpy() for value in fields]
    expected = oracles.contrastive_loss(*arrays, margins, num_best)
    assert expected > 0
    assert_agree("ivc", contrastive(output, options), torch.tensor(expected, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("num_negatives", [1, 2])
@pytest.mark.parametrize("num_best", [1, 2])
def test_the_best_and_their_negatives_get_a_gradient_and_none_is_detached(num_best: int, num_negatives: int) -> None:
    output = random_output(num_samples=8, num_best=num_best, num_negatives=num_negatives)
    options = LossesConfig(num_best=num_best, whole_video_margin=2.0, negative_margin=2.0)
    contrastive(output, options).backward()
    share = torch.full((8, num_best), 1 / (8 * num_best), dtype=torch.float64)
    each = -share.unsqueeze(-1).expand(-1, -1, num_negatives)
    assert_agree("negatives", output.negative_nll.grad, each, atol=1e-15)
    assert_agree("best", output.best_nll.grad, (1 + num_negatives) * share, atol=1e-15)
    assert_agree("whole video", output.whole_video_nll.grad, torch.full((8,), -1 / 8, dtype=torch.float64), atol=1e-15)
    assert output.positive_nll.grad is None


def test_a_positive_ahead_by_both_margins_costs_nothing() -> None:
    output = random_output()
    ahead = replace(output, best_nll=output.best_nll - 5)
    loss = contrastive(ahead, LossesConfig())
    loss.backward()
    assert loss.item() == 0
    for name in ("best_nll", "negative_nll", "whole_video_nll"):
        value = getattr(output, name)
        assert_agree(name, value.grad, torch.zeros_like(value))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("distant", 0.8**2),
        # the lower median of 0.1, 0.3, 0.4, 0.9 is 0.3
        ("middle", 0.2**2 + 0.6**2),
        ("all", 0.2**2 + 0.3**2 + 0.8**2 + 0.1**2 + 0.6**2 + 0.5**2),
    ],
)
def test_pull_of_each_strategy(name: str, expected: float) -> None:
    got = PULL_STRATEGIES[name](CENTER, GROUP, 2, backend="torch")
    assert_agree(name, got, torch.tensor(expected, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("name", sorted(PULL_STRATEGIES))
def test_the_loss_is_the_mean_over_samples_of_the_sum_over_proposals(name: str) -> None:
    pull, zero = PULL_STRATEGIES[name], torch.full_like(CENTER, 0.2)
    one = pull(CENTER, GROUP, 2)
    assert_agree("batch", pull(torch.cat((CENTER, zero)), GROUP, 2), one / 2, atol=1e-14)
    twice = pull(torch.cat((CENTER, CENTER), 1), torch.cat((GROUP, GROUP + 2)), 4)
    assert_agree("proposals", twice, 2 * one, atol=1e-14)


@pytest.mark.parametrize("name", sorted(PULL_STRATEGIES))
def test_a_step_against_the_gradient_brings_the_farthest_centers_together(name: str) -> None:
    center = CENTER.clone().requires_grad_()
    PULL_STRATEGIES[name](center, GROUP, 2).backward()
    moved = CENTER - 0.1 * center.grad
    assert moved[0, 3] - moved[0, 1] < 0.8 - 0.05
    assert moved[0, 0] == CENTER[0, 0]


def _config(**losses) -> PPSConfig:
    # a selector that fits any weights
    return small_config(inference__selector="vote", **{f"losses__{name}": value for name, value in losses.items()})


def _expected(config: PPSConfig, output: ModelOutput) -> dict[str, float]:
    """Every term by the loops, from the output's arrays."""
    options, group = config.losses, np.array(layout_of(config.proposals).group)
    components = output.proposals.components
    center, masks = (oracles.ragged(x.detach().numpy(), group) for x in (components.center, components.masks))
    if not options.push_single:
        masks = [[rows if len(rows) > 1 else rows[:0] for rows in sample] for sample in masks]
    proposals = [[sample] for sample in output.proposals.masks.detach().numpy()]
    nll = [x.detach().numpy() for x in (output.best_nll, output.whole_video_nll, output.negative_nll)]
    margins = (options.whole_video_margin, options.negative_margin)
    return {
        # all positives, so that the best are the loops' own choice
        "reconstruction": float(
            oracles.reconstruction_loss(output.positive_nll.detach().numpy(), nll[1], options.num_best).mean()
        ),
        "contrastive": oracles.contrastive_loss(*nll, margins, options.num_best),
        "pull": getattr(oracles, f"pull_{options.pull_strategy}")(center),
        "push_intra": oracles.push(masks, options.push_intra_target, options.push_normalize),
        "push_inter": oracles.push(proposals, options.push_inter_target, options.push_normalize),
        "alignment": -float(output.reward.detach().numpy().mean()),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"push_single": False},
        {"push_normalize": False},
        {"pull_strategy": "middle"},
        {"pull_strategy": "all"},
        {"num_best": 2},
        {"push_intra_target": 0.3, "push_inter_target": 0.05},
    ],
    ids=str,
)
def test_every_term_agrees_with_the_loops_and_the_total_is_their_weighted_sum(changes: dict) -> None:
    config = _config(**WEIGHTS, **changes)
    output = random_output(num_best=config.losses.num_best)
    report = Objective(config)(output)
    expected = _expected(config, output)
    assert list(report.terms) == list(LOSS_TERMS)
    for name, value in expected.items():
        assert value != 0, f"{name} is not exercised"
        assert_agree(name, report.terms[name], torch.tensor(value, dtype=torch.float64), rtol=1e-12)
    total = math.fsum(WEIGHTS[name] * value for name, value in expected.items())
    assert_agree("total", report.total, torch.tensor(total, dtype=torch.float64), rtol=1e-12)


def test_the_default_weights_are_those_of_the_config() -> None:
    config = small_config("charades", proposals__num_proposals=3)
    assert Objective(config).weights == {
        "reconstruction": 1.0,
        "contrastive": 3.0,
        "pull": 5.0,
        "push_intra": 0.001,
        "push_inter": 1.0,
    }


def test_names_of_terms_are_fields_of_the_config() -> None:
    weights = {name for name, default in vars(LossesConfig()).items() if name in LOSS_TERMS and default >= 0}
    assert weights == set(LOSS_TERMS)


@pytest.mark.parametrize("name", sorted(LOSS_TERMS))
def test_a_term_of_weight_zero_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("computed")

    monkeypatch.setitem(module.LOSS_TERMS, name, refuse)
    report = Objective(_config(**(WEIGHTS | {name: 0.0})))(random_output())
    assert list(report.terms) == [other for other in LOSS_TERMS if other != name]
    with pytest.raises(RuntimeError, match="computed"):
        Objective(_config(**WEIGHTS))(random_output())


@pytest.mark.parametrize("name", sorted(LOSS_TERMS))
def test_the_total_of_one_term_is_that_term_times_its_weight(name: str) -> None:
    alone = dict.fromkeys(LOSS_TERMS, 0.0) | {name: 2.5}
    report = Objective(_config(**alone))(random_output())
    assert_agree("total", report.total, 2.5 * report.terms[name], rtol=1e-15)


def test_all_weights_zero_give_a_zero_loss() -> None:
    report = Objective(_config(**dict.fromkeys(LOSS_TERMS, 0.0)))(random_output())
    assert report.total.item() == 0 and report.terms == {}


def test_the_report_names_the_reconstruction_of_every_sample_without_a_graph() -> None:
    output = random_output()
    report = Objective(_config())(output)
    assert not report.sample_total.requires_grad
    assert_agree("mean", report.sample_total.mean(), report.terms["reconstruction"], rtol=1e-14)
    assert report.sample_total.shape == (3,)


def test_gradients_reach_what_each_term_is_about() -> None:
    output = random_output()
    report = Objective(_config(**WEIGHTS))(output)
    components, proposals = output.proposals.components, output.proposals
    leaves = {
        "best": output.best_nll,
        "ranking": output.positive_nll,
        "negative": output.negative_nll,
        "whole": output.whole_video_nll,
        "center": components.center,
        "masks": components.masks,
        "proposals": proposals.masks,
        "reward": output.reward,
    }
    reached = {
        "reconstruction": {"best", "whole"},
        "contrastive": {"best", "negative", "whole"},
        "pull": {"center"},
        "push_intra": {"masks"},
        "push_inter": {"proposals"},
        "alignment": {"reward"},
    }
    for term, names in reached.items():
        grads = torch.autograd.grad(report.terms[term], leaves.values(), retain_graph=True, allow_unused=True)
        got = {name for name, grad in zip(leaves, grads, strict=True) if grad is not None and (grad != 0).any()}
        assert got == names, term


@pytest.mark.parametrize("push_normalize", [True, False])
def test_masks_that_underflow_are_pushed_by_their_exponents(push_normalize: bool) -> None:
    output, group = random_output(), np.array(layout_of(_config().proposals).group)
    proposals = output.proposals
    # every mask is 0 in float64
    exponents = (proposals.components.masks.detach().log() - 2000).requires_grad_()
    output = replace(
        output, proposals=replace(proposals, components=replace(proposals.components, exponents=exponents))
    )
    config = _config(**WEIGHTS, push_normalize=push_normalize)
    terms = Objective(config)(output).terms
    if not push_normalize:
        assert_agree("intra", terms["push_intra"], Objective(config)(random_output()).terms["push_intra"])
        return
    intra = oracles.ragged(exponents.detach().numpy(), group)
    inter = oracles.mixture_exponent(intra, oracles.ragged(proposals.importance.numpy(), group))
    for name, rows in (("push_intra", intra), ("push_inter", [[sample] for sample in inter])):
        expected = torch.tensor(oracles.push([[]], 0.15, True, rows), dtype=torch.float64)
        assert_agree(name, terms[name], expected, rtol=1e-12)
        (grad,) = torch.autograd.grad(terms[name], exponents, retain_graph=True)
        assert torch.isfinite(grad).all() and (grad != 0).any()


def test_a_proposal_of_one_component_is_pushed_only_if_asked() -> None:
    for push_single in (True, False):
        output = random_output()
        Objective(_config(**WEIGHTS, push_single=push_single))(output).total.backward()
        assert (output.proposals.components.masks.grad[:, 0] != 0).any() == push_single


def test_a_layout_of_single_components_without_push_single_has_no_intra_push() -> None:
    changes = {"proposals__layout": "uniform", "losses__push_single": False, "losses__push_intra": 1.0}
    config = small_config(**changes)
    report = Objective(config)(random_output(layout_of(config.proposals)))
    assert report.terms["push_intra"].item() == 0


def test_an_output_without_negatives_is_refused() -> None:
    output = replace(random_output(), negative_nll=None, negative_masks=None, whole_video_nll=None)
    with pytest.raises(ValueError, match="the objective needs the negatives: run the model with with_negatives=True"):
        Objective(_config())(output)


def test_where_nothing_is_rebuilt_the_alignment_of_each_sample_is_reported() -> None:
    output = replace(random_output(), best_nll=None, negative_nll=None, negative_masks=None, whole_video_nll=None)
    report = Objective(_config(reconstruction=0.0, contrastive=0.0, alignment=2.0))(output)
    assert_agree("samples", report.sample_total, -output.reward.detach().mean(1), rtol=1e-15)
    assert list(report.terms) == ["pull", "push_intra", "push_inter", "alignment"]
    report.total.backward()
    assert_agree("reward", output.reward.grad, torch.full_like(output.reward, -2.0 / 9), rtol=1e-12)


def test_an_output_without_rewards_is_refused_where_they_are_trained() -> None:
    with pytest.raises(ValueError, match=r"needs the rewards of proposals: build the model with losses\.alignment > 0"):
        Objective(_config(alignment=1.0))(replace(random_output(), reward=None))


def test_the_objective_has_no_state() -> None:
    assert Objective(_config()).state_dict() == {}
