"""The heads' launches compute what the equations compute, with the gradients of autograd."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.registration import is_interpreted
from pps_fast.proposals.heads import CENTERS, WIDTHS, ComponentHead
from pps_fast.proposals.layout import MixtureLayout, ramp, uniform
from pps_fast.train.optimizer import Adam
from tests.support.cases import randomize
from tests.support.compare import assert_agree

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
# more components, samples and values of g_cls than a program holds at a time
LARGE = uniform(3, 12)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _heads(layout: MixtureLayout, center: str, width: str, max_width: float = 1.0, dim: int = 6) -> list[ComponentHead]:
    """Heads on the fused path and their copy on torch's, in float64."""
    heads = randomize(ComponentHead(dim, layout, center, width, max_width, "triton"))
    exact = deepcopy(heads).double()
    exact.backend = "torch"
    return [heads, exact]


def _results(heads: ComponentHead, g_cls: Tensor) -> list[Tensor]:
    """Centers, widths and the gradients of g_cls and of all parameters."""
    leaf = g_cls.clone().requires_grad_()
    values = heads(leaf)
    for value, seed in zip(values, (1, 2), strict=True):
        value.backward(_draw(*value.shape, seed=seed).to(value), retain_graph=True)
    return [*(value.detach() for value in values), leaf.grad, *(each.grad for each in heads.parameters())]


def _assert_near(heads: list[ComponentHead], g_cls: Tensor, rtol: float = 1e-6) -> None:
    for got, expected in zip(*(_results(each, g_cls.to(each.center.weight)) for each in heads), strict=True):
        assert_agree("heads", got.double(), expected, rtol=rtol)


@pytest.mark.parametrize("center", sorted(CENTERS))
@pytest.mark.parametrize("width", sorted(WIDTHS))
def test_values_and_gradients_are_those_of_float64(center: str, width: str, poisoned_empty: None) -> None:
    _assert_near(_heads(ramp(3), center, width, 0.45), _draw(4, 6))


def test_sizes_beyond_a_block_are_computed_in_parts(poisoned_empty: None) -> None:
    _assert_near(_heads(LARGE, "per_component", "per_proposal", dim=70), _draw(35, 70))


def test_under_autocast_nothing_is_rounded_but_g_cls() -> None:
    heads, exact = _heads(ramp(3), "per_component", "per_proposal")
    g_cls = _draw(4, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = heads(g_cls)
    for value, expected in zip(got, exact(g_cls.double()), strict=True):
        assert value.dtype == torch.float32
        assert_agree("values", value.double(), expected, rtol=1e-6)


def test_gradients_are_added_where_the_update_reads_them() -> None:
    heads, _ = _heads(ramp(3), "per_component", "per_proposal")
    optimizer = Adam(heads.parameters(), lr=0.0, backend="torch")
    _results(heads, _draw(4, 6))
    optimizer.step()
    memory = [each.grad.data_ptr() for each in heads.parameters()]
    first = [each.clone() for each in _results(heads, _draw(4, 6))[3:]]
    assert [each.grad.data_ptr() for each in heads.parameters()] == memory
    for twice, once in zip(_results(heads, _draw(4, 6))[3:], first, strict=True):
        assert_agree("gradient", twice, 2 * once, rtol=1e-6)


def test_a_second_derivative_is_refused() -> None:
    heads, _ = _heads(ramp(3), "per_component", "per_proposal")
    center, _ = heads(_draw(4, 6))
    (first,) = torch.autograd.grad(center.sum(), heads.center.weight, create_graph=True)
    with pytest.raises(BackendError, match="heads of centers and widths: the kernel's gradient"):
        first.sum().backward()


def test_the_registered_operators_pass_opcheck() -> None:
    heads, _ = _heads(ramp(3), "per_component", "per_proposal")
    g_cls, parameters = _draw(4, 6), [each.detach() for each in heads.parameters()]
    indices, ops = [heads.center_index, heads.width_index], torch.ops.pps_fast
    torch.library.opcheck(ops.component_heads_fwd.default, (g_cls, parameters, indices, 1.0))
    values = list(ops.component_heads_fwd(g_cls, parameters, indices, 1.0))
    sums = [torch.zeros_like(each) for each in parameters]
    arguments = (sums, [_draw(4, 6, seed=1), _draw(4, 6, seed=2)], g_cls, parameters[::2], indices, values, 1.0)
    torch.library.opcheck(ops.component_heads_bwd.default, arguments)
