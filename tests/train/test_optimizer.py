"""Adam as published: golden trajectory, the update it replaced, refused updates, buffers, nothing read back."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from benchmarks.update import ForeachAdam
from pps_fast.config import TrainConfig
from pps_fast.train.optimizer import MOMENTS, Adam
from pps_fast.train.schedule import learning_rate

GOLDEN = Path(__file__).parents[1] / "golden" / "kernels_f64.npz"


def _parameter(values, dtype=torch.float64):
    return torch.nn.Parameter(torch.as_tensor(values, dtype=dtype).clone())


def _yes() -> torch.Tensor:
    return torch.tensor(True)


def _many(seed: int, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Parameters of several shapes, with the same values for a seed."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 5), (1,), (), (70,), (2, 3, 4), (40, 50)]
    return [_parameter(torch.randn(shape, generator=generator), dtype) for shape in shapes]


def test_golden_trajectory_with_clipping_and_schedule():
    golden = np.load(GOLDEN, allow_pickle=False)
    scale, clip = float(golden["adam/lr_scale"]), float(golden["adam/clip"])
    # two parameters, so that the norm and the update run over several
    halves = [_parameter(golden["adam/p0"][:2]), _parameter(golden["adam/p0"][2:])]
    optimizer = Adam(halves, lr=0.0)
    for update, gradient in enumerate(torch.from_numpy(golden["adam/grad"])):
        halves[0].grad, halves[1].grad = gradient[:2].clone(), gradient[2:].clone()
        optimizer.set_learning_rate(scale * learning_rate(update, TrainConfig()))
        norm = optimizer.clip_and_step(clip, _yes())
        np.testing.assert_allclose(float(norm), golden["adam/grad_norm"][update], rtol=1e-12)
        got = torch.cat(halves).detach().numpy()
        np.testing.assert_allclose(got, golden["adam/trajectory"][update], rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_twenty_steps_are_those_of_the_update_over_lists(dtype: torch.dtype, near: float, weight_decay: float):
    ours, theirs = _many(0, dtype), _many(0, dtype)
    options = {"lr": 1e-2, "weight_decay": weight_decay}
    one, other = Adam(ours, **options), ForeachAdam(theirs, **options)
    generator, is_clipped = torch.Generator().manual_seed(1), set()
    for update in range(20):
        # long and short gradients in turn, one that is not finite, and a first parameter that has one from step 3 on
        for index, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(p.shape, generator=generator).to(dtype) * (0.1 if update % 2 else 10)
            if update == 10 and index == 3:
                gradient[7] = float("nan")
            if index > 0 or update >= 3:
                p.grad, q.grad = gradient.clone(), gradient.clone()
        flags = _yes(), _yes()
        norm, expected = one.clip_and_step(20.0, flags[0]), other.clip_and_step(20.0, flags[1])
        assert flags[0] == flags[1] == (update != 10)
        if update != 10:
            is_clipped.add(bool(norm > 20))
            np.testing.assert_allclose(norm.item(), expected.item(), rtol=near)
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=near, atol=near)
            if q in other.moments:
                for moment, value in zip(one.state[p].values(), other.moments[q], strict=True):
                    np.testing.assert_allclose(moment.numpy(), value.numpy(), rtol=near, atol=near)
    assert is_clipped == {True, False}
    assert one.param_groups[0]["update"].item() == other.update.item() == 19


def test_without_clipping_the_update_over_lists_is_met_in_every_bit():
    ours, theirs = _many(0, torch.float32), _many(0, torch.float32)
    one, other = Adam(ours, lr=1e-2, weight_decay=0.1), ForeachAdam(theirs, lr=1e-2, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        one.clip_and_step(1e9, _yes()), other.clip_and_step(1e9, _yes())
        assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


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
    optimizer.clip_and_step(1.0, _yes())
    before = [parameter.detach().clone(), *(t.clone() for t in optimizer.state[parameter].values())]
    parameter.grad = torch.full((2,), bad, dtype=torch.float64)
    optimizer.clip_and_step(1.0, torch.tensor(False))
    after = [parameter.detach(), *optimizer.state[parameter].values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert optimizer.param_groups[0]["update"].item() == 1


def test_first_update_may_be_refused():
    parameter = _parameter([1.0])
    parameter.grad = torch.tensor([float("nan")], dtype=torch.float64)
    Adam([parameter], lr=0.1).clip_and_step(1.0, torch.tensor(False))
    assert parameter.item() == 1.0


def test_a_gradient_that_is_not_finite_turns_the_flag_down():
    parameter, is_finite = _parameter([1.0]), _yes()
    parameter.grad = torch.tensor([float("inf")], dtype=torch.float64)
    Adam([parameter], lr=0.1).clip_and_step(1.0, is_finite)
    assert parameter.item() == 1.0 and not is_finite


def test_an_optimizer_clips_by_the_norm_of_its_own_parameters_and_leaves_others_alone():
    ours, theirs = _parameter([1.0, 1.0]), _parameter([1.0])
    one, other = Adam([ours], lr=0.1), Adam([theirs], lr=0.1)
    ours.grad, theirs.grad = torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor([9.0], dtype=torch.float64)
    assert one.clip_and_step(1.0, _yes()).item() == 5.0
    assert theirs.item() == 1.0 and theirs.grad.item() == 9.0 and (ours != 1.0).all()
    assert other.clip_and_step(1.0, _yes()).item() == 9.0
    assert one.param_groups[0]["update"].item() == other.param_groups[0]["update"].item() == 1


# --- buffers --------------------------------------------------------------------------------------


def _in_buffers(dtype: torch.dtype = torch.float32) -> tuple[list[torch.nn.Parameter], Adam]:
    """Parameters after their first update."""
    parameters = _many(0, dtype)
    optimizer = Adam(parameters, lr=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return parameters, optimizer


def test_values_gradients_and_moments_lie_in_one_buffer_each_at_aligned_addresses():
    parameters, optimizer = _in_buffers()
    kinds = [parameters, [p.grad for p in parameters]]
    kinds += [[optimizer.state[p][moment] for p in parameters] for moment in MOMENTS]
    memories = [{tensor.untyped_storage().data_ptr() for tensor in tensors} for tensors in kinds]
    assert all(len(memory) == 1 for memory in memories) and len(set.union(*memories)) == 4
    begin = parameters[0].data_ptr()
    assert all((tensor.data_ptr() - begin) % 256 == 0 and tensor.is_contiguous() for tensor in parameters)
    # as many values as there are, with the rows of each rounded up to 64
    rooms = [64 * 5, 64, 64, 128, 64 * 3 * 4, 64 * 50]
    assert parameters[0].untyped_storage().nbytes() == 4 * sum(rooms)


def test_backward_adds_into_the_buffers_and_addresses_stay():
    parameters, optimizer = _in_buffers()
    gradients = [p.grad for p in parameters]
    addresses = [t.data_ptr() for t in (*parameters, *gradients)]
    for _ in range(2):
        sum(p.square().sum() for p in parameters).backward()
        assert all(p.grad is gradient and gradient.any() for p, gradient in zip(parameters, gradients, strict=True))
        optimizer.step()
        assert not any(gradient.any() for gradient in gradients)
    assert [t.data_ptr() for t in (*parameters, *(p.grad for p in parameters))] == addresses


def test_zero_grad_fills_and_never_takes_away():
    used, unused = _parameter([1.0]), _parameter([1.0])
    optimizer = Adam([used, unused], lr=0.1)
    for _ in range(2):
        used.grad = torch.ones(1, dtype=torch.float64)
        optimizer.zero_grad()
        assert used.grad.item() == 0 and unused.grad is None
        optimizer.step()
    with pytest.raises(ValueError, match="set_to_none = True"):
        optimizer.zero_grad(set_to_none=True)


def test_a_late_parameter_moves_no_other():
    early, late = _parameter([1.0]), _parameter([2.0])
    optimizer = Adam([early, late], lr=0.1)
    early.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    address = early.data_ptr()
    early.grad.fill_(3.0)
    late.grad = torch.full((1,), 4.0, dtype=torch.float64)
    assert optimizer.clip_and_step(1.0, _yes()).item() == 5.0
    assert early.data_ptr() == address and late.item() != 2.0


def test_parameters_of_several_dtypes_share_norm_and_count():
    double, single = _parameter([1.0]), _parameter([1.0], torch.float32)
    double.grad, single.grad = torch.full((1,), 3.0, dtype=torch.float64), torch.full((1,), 4.0)
    optimizer = Adam([double, single], lr=0.1)
    assert optimizer.clip_and_step(1.0, _yes()).item() == pytest.approx(5.0, rel=1e-6)
    assert double.dtype == torch.float64 and single.dtype == torch.float32
    np.testing.assert_allclose(single.item(), double.item(), rtol=1e-6)


def test_weights_are_loaded_into_the_buffers():
    model = torch.nn.Linear(3, 2)
    optimizer = Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    addresses = [p.data_ptr() for p in model.parameters()]
    model.load_state_dict({"weight": torch.full((2, 3), 5.0), "bias": torch.zeros(2)})
    assert [p.data_ptr() for p in model.parameters()] == addresses and (model.weight == 5).all()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert (model.weight != 5).all()


def test_state_of_torch_is_loaded_and_continues_bit_for_bit():
    (ours, one), (theirs, other) = _in_buffers(), _in_buffers()
    for parameter, other_parameter in zip(ours, theirs, strict=True):
        parameter.grad.fill_(0.5)
        other_parameter.grad.fill_(-0.5)
    one.step(), other.step()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for parameter, other_parameter in zip(ours, theirs, strict=True):
        other_parameter.data.copy_(parameter)
        parameter.grad.fill_(0.25)
        other_parameter.grad.fill_(0.25)
    one.step(), other.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
    assert other.param_groups[0]["update"].item() == 3


@pytest.mark.parametrize("convert", [lambda model: model.double(), lambda model: model.double().float()])
def test_a_model_that_was_converted_is_refused(convert):
    model = torch.nn.Linear(3, 2)
    optimizer = Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.step()
    convert(model)
    with pytest.raises(ValueError, match=r"parameter 0 \[2, 3\] was moved or converted after its first update"):
        optimizer.step()


def test_a_parameter_on_another_device_than_its_optimizer_is_refused():
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = Adam([parameter], lr=0.1)
    # as if the model had been moved after this
    optimizer.param_groups[0]["update"] = torch.zeros(())
    parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(ValueError, match="a parameter is on meta, the optimizer was made on cpu"):
        optimizer.step()


def test_gradients_that_were_set_to_none_are_refused():
    parameters, optimizer = _in_buffers()
    parameters[1].grad = None
    with pytest.raises(ValueError, match=r"the gradient of parameter 1 \[1\] was set to None; .*zero_grad"):
        optimizer.step()


def test_groups_and_several_devices_are_refused():
    with pytest.raises(ValueError, match="2 groups of parameters: make an optimizer for each"):
        Adam([{"params": [_parameter([1.0])]}, {"params": [_parameter([1.0])]}], lr=0.1)
    with pytest.raises(ValueError, match="parameters on cpu and meta: make an optimizer for each device"):
        Adam([_parameter([1.0]), torch.nn.Parameter(torch.zeros(1, device="meta"))], lr=0.1)


def test_without_any_gradient_nothing_happens():
    parameter = _parameter([1.0])
    optimizer = Adam([parameter], lr=0.1)
    assert optimizer.clip_and_step(1.0, _yes()).item() == 0
    assert optimizer.param_groups[0]["update"].item() == 0


def test_step_reads_nothing_back_from_the_device():
    with FakeTensorMode():
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = Adam([parameter], lr=0.1, weight_decay=0.1)
        parameter.grad = torch.ones(3)
        norm = optimizer.clip_and_step(1.0, torch.isfinite(parameter.grad.sum()))
        assert optimizer.state[parameter]["first_moment"].shape == (3,)
        # the mode would have caught it
        with pytest.raises(DataDependentOutputException):
            norm.item()


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
