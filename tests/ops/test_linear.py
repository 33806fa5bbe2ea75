"""Linear layers on the fused path have the results and the gradients of torch's, with fewer roundings."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from pps_fast.encoder.linear import Linear
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.reconstruction_nll import reconstruction_nll
from pps_fast.ops.registration import is_interpreted
from pps_fast.train.optimizer import Adam
from tests.support.compare import assert_agree

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _layers() -> list[Linear]:
    """A layer on the fused path and its copy on torch's."""
    torch.manual_seed(0)
    layers = [Linear(6, 5, "triton")]
    layers.append(deepcopy(layers[0]))
    layers[1].backend = "torch"
    return layers


def _gradients(layer: Linear, x: Tensor, grad: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    # a layer that is used twice sums both gradients
    out = layer(leaf) + layer(leaf[:, :2]).sum()
    out.backward(grad.to(out.dtype))
    return [out.detach(), leaf.grad, layer.weight.grad, layer.bias.grad]


def test_result_and_gradients_are_those_of_torch() -> None:
    x, grad = _draw(3, 7, 6, seed=1), _draw(3, 7, 5, seed=2)
    for got, expected in zip(*(_gradients(layer, x, grad) for layer in _layers()), strict=True):
        assert_agree("fp32", got, expected, rtol=2e-6)


def test_in_bf16_gradients_of_parameters_are_nearer_to_float64() -> None:
    x, grad = _draw(3, 200, 6, seed=1), _draw(3, 200, 5, seed=2)
    exact = _gradients(_layers()[1].double(), x.bfloat16().double(), grad.double())
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = (_gradients(layer, x, grad) for layer in _layers())
    assert [each.dtype for each in got] == [each.dtype for each in expected]
    for index in (2, 3):
        errors = [(each[index].double() - exact[index]).norm() for each in (got, expected)]
        assert errors[0] <= errors[1] <= 0.02 * exact[index].norm()


def test_rows_of_a_rounded_product_begin_at_multiples_of_128_bytes_and_so_do_those_of_its_gradient() -> None:
    layer, x = _layers()[0], _draw(2, 3, 4, 6, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.shape == (2, 3, 4, 5) and out.stride() == (12 * 64, 4 * 64, 64, 1)
    seen: list[Tensor] = []
    out.register_hook(seen.append)
    targets, is_target = torch.zeros(2, 4, dtype=torch.int64), torch.ones(2, 4, dtype=torch.bool)
    reconstruction_nll(out, targets, is_target, 0.1, backend="triton").sum().backward()
    assert seen[0].stride() == out.stride()
    flat = seen[0].float().flatten(0, 2)
    assert_agree("weight", layer.weight.grad, flat.t() @ x.bfloat16().float().flatten(0, 2), atol=1e-6)
    assert_agree("bias", layer.bias.grad, flat.sum(0), atol=1e-6)


def test_gradients_are_added_where_the_update_reads_them() -> None:
    # copies of the second layer's weights are made, in the same buffer, after the first has used its own
    fused, plain = ([layer, deepcopy(layer)] for layer in _layers())
    parameters = [each for layer in fused for each in layer.parameters()]
    optimizer = Adam(parameters, lr=0.0, backend="torch")

    def backward(layers: list[Linear]) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            total = _loss(layers[0]) + 2 * _loss(layers[1])
        total.backward()

    for _ in range(2):
        backward(fused)
        optimizer.step()
    memory = [each.grad.data_ptr() for each in parameters]
    backward(fused)
    backward(plain)
    assert [each.grad.data_ptr() for each in parameters] == memory
    for got, expected in zip(parameters, (each for layer in plain for each in layer.parameters()), strict=True):
        assert_agree("gradient", got.grad, expected.grad, rtol=0.02)


def _loss(layer: Linear) -> Tensor:
    return layer(_draw(4, 6, seed=3).requires_grad_()).float().square().sum()


def test_a_second_derivative_is_refused() -> None:
    layer, x = _layers()[0], _draw(4, 6, seed=3)
    (first,) = torch.autograd.grad(layer(x).square().sum(), layer.weight, create_graph=True)
    with pytest.raises(BackendError, match="a linear layer: the kernel's gradient has no gradient of its own"):
        first.sum().backward()
