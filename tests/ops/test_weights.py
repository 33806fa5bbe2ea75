"""Rounded copies of weights are made once, are current after every change, and keep nothing alive."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from pps_fast.ops.weights import FlatWeights, gradient_of, padded, refresh, room_of, rounded
from pps_fast.train.optimizer import Adam

BF16 = torch.bfloat16


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))


def _trained(parameters: list[nn.Parameter]) -> Adam:
    """An optimizer that has the parameters in its buffers."""
    optimizer = Adam(parameters, lr=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def _is_current(parameter: Tensor) -> bool:
    return torch.equal(rounded(parameter, BF16), parameter.detach().to(BF16))


def test_a_parameter_of_the_dtype_is_its_own_copy() -> None:
    parameter = _parameter(3)
    assert rounded(parameter, torch.float32).data_ptr() == parameter.data_ptr()


def test_a_copy_is_made_once_and_again_after_a_change() -> None:
    parameter = _parameter(3, 2)
    copy = rounded(parameter, BF16)
    assert copy.dtype == BF16 and not copy.requires_grad and _is_current(parameter)
    assert rounded(parameter, BF16) is copy
    with torch.no_grad():
        parameter.mul_(3)
    assert rounded(parameter, BF16) is copy and _is_current(parameter)
    assert rounded(parameter, torch.float16).dtype == torch.float16


def test_a_parameter_that_was_moved_gets_a_new_copy() -> None:
    parameter = _parameter(3)
    rounded(parameter, BF16)
    parameter.data = torch.full((3,), 7.0)
    assert _is_current(parameter)


def test_a_copy_made_without_gradients_does_not_hide_later_changes_from_training() -> None:
    parameter = _parameter(3)
    with torch.no_grad():
        rounded(parameter, BF16)
    with torch.inference_mode():
        assert _is_current(parameter)
    with torch.no_grad():
        parameter.add_(1)
    assert _is_current(parameter)


def test_a_copy_that_an_evaluation_made_is_written_by_later_updates() -> None:
    parameter = _parameter(3, 2)
    optimizer = _trained([parameter])
    with torch.inference_mode():
        assert _is_current(parameter)
    parameter.grad.fill_(2.0)
    optimizer.step()
    assert _is_current(parameter)


def test_parameters_of_an_optimizer_share_a_flat_copy_that_its_update_writes() -> None:
    parameters = [_parameter(3, 2), _parameter(5)]
    optimizer = _trained(parameters)
    copies = [rounded(parameter, BF16) for parameter in parameters]
    assert copies[0].untyped_storage().data_ptr() == copies[1].untyped_storage().data_ptr()
    for parameter in parameters:
        parameter.grad.fill_(2.0)
    versions, before = [p._version for p in parameters], copies[0].clone()
    optimizer.step()
    # what the versions tell is a change by others
    assert [p._version for p in parameters] == versions
    assert not torch.equal(copies[0], before)
    assert all(torch.equal(copy, p.detach().to(BF16)) for copy, p in zip(copies, parameters, strict=True))


def test_the_first_update_writes_a_flat_copy_of_parameters_that_were_rounded_before() -> None:
    parameters = [_parameter(3, 2), _parameter(5)]
    rounded(parameters[1], BF16)
    (flat,) = [x for x in _trained(parameters).memory() if x.dtype == BF16]
    # rounded after the update, zeros in the gaps
    assert flat.count_nonzero() == 11
    assert torch.equal(flat[:6], parameters[0].detach().flatten().to(BF16))
    assert rounded(parameters[0], BF16).data_ptr() == flat.data_ptr() and all(map(_is_current, parameters))


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_padded_copy_has_rows_of_zeros_behind_the_last(is_trained: bool) -> None:
    parameters = [_parameter(3, 2), _parameter(70), _parameter(64, 2)]
    optimizer = _trained(parameters) if is_trained else None
    for parameter, num_rows in zip(parameters, (64, 128, 64), strict=True):
        copy, size = padded(parameter, BF16), len(parameter)
        assert copy.shape == (num_rows, *parameter.shape[1:]) and copy.numel() == room_of(parameter)
        assert torch.equal(copy[:size], parameter.detach().to(BF16)) and not copy[size:].any()
        assert copy.data_ptr() == rounded(parameter, BF16).data_ptr() and _is_current(parameter)
    if optimizer is not None:
        for parameter in parameters:
            parameter.grad.fill_(2.0)
        optimizer.step()
        assert all(not padded(p, BF16)[len(p) :].any() and _is_current(p) for p in parameters)


def test_what_is_not_rounded_is_not_padded() -> None:
    assert padded(_parameter(3, 2), torch.float32).shape == (3, 2)


def test_a_change_before_the_first_use_of_a_flat_copy_is_seen() -> None:
    parameters = [_parameter(3), _parameter(5)]
    _trained(parameters)
    rounded(parameters[0], BF16)
    with torch.no_grad():
        parameters[1].fill_(9.0)
    assert _is_current(parameters[1])


def test_refresh_makes_copies_current_that_nobody_asks_for() -> None:
    parameters = [_parameter(3), _parameter(5)]
    optimizer = _trained(parameters)
    copy = rounded(parameters[0], BF16)
    with torch.no_grad():
        parameters[0].fill_(4.0)
    refresh(parameters[1:])
    assert not (copy == 4).any()
    optimizer.refresh()
    assert (copy == 4).all()


def test_a_buffer_of_gradients_is_lent_while_it_is_the_gradient() -> None:
    (parameter,) = parameters = [_parameter(3)]
    assert gradient_of(parameter) is None
    _trained(parameters)
    assert gradient_of(parameter) is parameter.grad
    parameter.grad = torch.ones(3)
    assert gradient_of(parameter) is None


def test_nothing_is_kept_alive() -> None:
    parameter, flat = _parameter(4), FlatWeights(torch.zeros(4))
    flat.add(parameter, 0, torch.zeros(4))
    rounded(parameter, BF16)
    known = weakref.ref(parameter)
    del parameter
    gc.collect()
    assert known() is None
