"""Adam as published: golden trajectory, refused updates, nothing read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pps_fast.config import TrainConfig
from pps_fast.train.optimizer import Adam
from pps_fast.train.schedule import learning_rate

GOLDEN = Path(__file__).parents[1] / "golden" / "kernels_f64.npz"


def _parameter(values, dtype=torch.float64):
    return torch.nn.Parameter(torch.as_tensor(values, dtype=dtype).clone())


def test_golden_trajectory_with_clipping_and_schedule():
    golden = np.load(GOLDEN, allow_pickle=False)
    scale, clip = float(golden["adam/lr_scale"]), float(golden["adam/clip"])
    # two parameters, so that the norm and the update run over a list
    halves = [_parameter(golden["adam/p0"][:2]), _parameter(golden["adam/p0"][2:])]
    optimizer = Adam(halves, lr=0.0)
    for update, gradient in enumerate(torch.from_numpy(golden["adam/grad"])):
        halves[0].grad, halves[1].grad = gradient[:2].clone(), gradient[2:].clone()
        norm = torch.nn.utils.clip_grad_norm_(halves, clip, foreach=True)
        optimizer.set_learning_rate(scale * learning_rate(update, TrainConfig()))
        optimizer.step()
        np.testing.assert_allclose(float(norm), golden["adam/grad_norm"][update], rtol=1e-12)
        got = torch.cat(halves).detach().numpy()
        np.testing.assert_allclose(got, golden["adam/trajectory"][update], rtol=0, atol=1e-12)


def test_eps_is_added_before_the_bias_correction():
    parameter = _parameter([0.0])
    parameter.grad = torch.tensor([1e-8], dtype=torch.float64)
    Adam([parameter], lr=1.0).step()
    first, second = 0.1 * 1e-8, 0.001 * 1e-16
    expected = -np.sqrt(0.001) / 0.1 * first / (np.sqrt(second) + 1e-8)
    np.testing.assert_allclose(parameter.item(), expected, rtol=1e-12)
    assert abs(parameter.item() + 0.5) > 0.1  # where eps after the correction would lead


def test_weight_decay_is_decoupled_from_the_moments():
    decayed, plain = _parameter([2.0]), _parameter([2.0])
    for parameter, decay in ((decayed, 0.1), (plain, 0.0)):
        parameter.grad = torch.tensor([3.0], dtype=torch.float64)
        Adam([parameter], lr=0.5, weight_decay=decay).step()
    np.testing.assert_allclose(decayed.item(), plain.item() - 2.0 * 0.5 * 0.1, rtol=1e-14)


def test_parameter_without_gradient_keeps_its_value_and_gets_no_state():
    used, unused = _parameter([1.0]), _parameter([1.0])
    used.grad = torch.ones(1, dtype=torch.float64)
    optimizer = Adam([used, unused], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert unused.item() == 1.0 and unused not in optimizer.state
    assert used.item() != 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.0])
def test_refused_update_changes_nothing_at_all(bad):
    parameter = _parameter([1.0, -2.0])
    optimizer = Adam([parameter], lr=0.1, weight_decay=0.1)
    parameter.grad = torch.tensor([0.3, 0.4], dtype=torch.float64)
    optimizer.step(apply=torch.tensor(True))
    before = [parameter.detach().clone(), *(t.clone() for t in optimizer.state[parameter].values())]
    parameter.grad = torch.full((2,), bad, dtype=torch.float64)
    optimizer.step(apply=torch.tensor(False))
    after = [parameter.detach(), *optimizer.state[parameter].values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert optimizer.param_groups[0]["update"].item() == 1


def test_first_update_may_be_refused():
    parameter = _parameter([1.0])
    parameter.grad = torch.tensor([float("nan")], dtype=torch.float64)
    Adam([parameter], lr=0.1).step(apply=torch.tensor(False))
    assert parameter.item() == 1.0


def test_admitted_update_equals_the_plain_one_bit_for_bit():
    torch.manual_seed(0)
    values, gradients = torch.randn(5), torch.randn(4, 5)
    results = []
    for apply in (None, torch.tensor(True)):
        parameter = _parameter(values, torch.float32)
        optimizer = Adam([parameter], lr=1e-2)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step(apply=apply)
        results.append(parameter.detach())
    assert torch.equal(*results)


def test_step_reads_nothing_back_from_the_device():
    with FakeTensorMode():
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = Adam([parameter], lr=0.1, weight_decay=0.1)
        parameter.grad = torch.ones(3)
        apply = torch.isfinite(parameter.grad.sum())
        optimizer.step(apply=apply)
        assert optimizer.state[parameter]["first_moment"].shape == (3,)
        # the mode would have caught it
        with pytest.raises(DataDependentOutputException):
            apply.item()


def test_learning_rate_is_filled_in_place():
    optimizer = Adam([_parameter([1.0])], lr=0.1)
    tensor = optimizer.param_groups[0]["lr"]
    optimizer.set_learning_rate(0.25)
    assert tensor is optimizer.param_groups[0]["lr"] and tensor.item() == 0.25


@pytest.mark.parametrize("wrong", [{"betas": (1.0, 0.9)}, {"eps": 0.0}, {"weight_decay": -1.0}, {"lr": -1.0}])
def test_constants_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Adam([_parameter([1.0])], **{"lr": 0.1, **wrong})


def test_closure_is_refused():
    with pytest.raises(ValueError, match="closure"):
        Adam([_parameter([1.0])], lr=0.1).step(lambda: 0.0)
