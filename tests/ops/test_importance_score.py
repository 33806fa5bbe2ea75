"""The launches of the importance's MLP compute Eq. (9), with the gradients of autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.importance_score import importance_score
from pps_fast.ops.registration import is_interpreted
from pps_fast.ops.weights import FlatWeights
from tests.support import oracles
from tests.support.compare import assert_agree

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
# samples, scored components, width, the first of them, components: all of them, some, more rows than a program holds
SIZES = [(3, 4, 6, 0, 4), (2, 3, 5, 1, 6), (5, 9, 600, 2, 11)]


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _leaves(num_samples: int, num_scored: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    """r_cls, the inner and the outer weight."""
    shapes = ((num_samples, num_scored, width), (width, width), (1, width))
    drawn = [_draw(*shape, seed=seed) / shape[-1] ** 0.5 for seed, shape in enumerate(shapes)]
    return [each.to(dtype).requires_grad_() for each in drawn]


def _results(sizes: tuple[int, ...], backend: str, dtype: torch.dtype) -> list[Tensor]:
    """Scores and gradients of r_cls and both weights."""
    leaves = _leaves(*sizes[:3], dtype)
    score = importance_score(*leaves, *sizes[3:], backend)
    score.backward(_draw(*score.shape, seed=3).to(score))
    return [score.detach(), *(leaf.grad for leaf in leaves)]


def test_other_components_than_the_scored_have_the_score_0() -> None:
    leaves = [each.detach().numpy() for each in _leaves(2, 3, 5, torch.float64)]
    got = importance_score(*map(torch.from_numpy, leaves), 1, 6, "torch")
    assert_agree("scored", got[:, 1:4], oracles.importance_score(*leaves), atol=1e-14)
    assert_agree("others", got[:, [0, 4, 5]], torch.zeros(2, 3, dtype=torch.float64))


@needs_interpreter
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_scores_and_gradients_are_those_of_float64(sizes: tuple[int, ...], poisoned_empty: None) -> None:
    pairs = zip(_results(sizes, "triton", torch.float32), _results(sizes, "torch", torch.float64), strict=True)
    for got, expected in pairs:
        assert_agree("score", got.double(), expected, rtol=2e-6)


@needs_interpreter
def test_in_bf16_scores_and_gradients_of_weights_are_nearer_to_float64() -> None:
    sizes = (3, 40, 16, 1, 42)
    exact = _results(sizes, "torch", torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        got, plain = (_results(sizes, backend, torch.float32) for backend in ("triton", "torch"))
    assert [each.dtype for each in got] == [each.dtype for each in plain]
    for index in (0, 2, 3):
        errors = [(each[index].double() - exact[index]).norm() for each in (got, plain)]
        assert errors[0] <= errors[1] <= 0.02 * exact[index].norm()


@needs_interpreter
def test_large_values_saturate() -> None:
    r_cls = torch.full((1, 2, 4), 1e30)
    r_cls[0, 1] *= -1
    score = importance_score(r_cls, torch.eye(4), torch.ones(1, 4), 0, 2, "triton")
    assert score.tolist() == [[4.0, -4.0]]


@needs_interpreter
def test_gradients_are_added_where_the_update_reads_them() -> None:
    r_cls, *weights = _leaves(3, 4, 6, torch.float32)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
        FlatWeights(weight.detach().flatten()).add(weight, 0, weight.grad)
    before = [weight.grad for weight in weights]
    importance_score(r_cls, *weights, 0, 4, "triton").sum().backward()
    fresh = _leaves(3, 4, 6, torch.float32)
    importance_score(*fresh, 0, 4, "torch").sum().backward()
    for weight, buffer, expected in zip(weights, before, fresh[1:], strict=True):
        assert weight.grad is buffer
        assert_agree("gradient", buffer - 1, expected.grad, atol=2e-6)


@needs_interpreter
def test_a_second_derivative_is_refused() -> None:
    leaves = _leaves(2, 3, 4, torch.float32)
    (first,) = torch.autograd.grad(importance_score(*leaves, 0, 3, "triton").sum(), leaves[0], create_graph=True)
    with pytest.raises(BackendError, match="importance scores: the kernel's gradient"):
        first.sum().backward()


@needs_interpreter
def test_the_registered_operators_pass_opcheck() -> None:
    x, outer, ops = _draw(2, 3, 5), _draw(1, 5), torch.ops.pps_fast
    torch.library.opcheck(ops.importance_score_fwd.default, (x, outer, 1, 6))
    torch.library.opcheck(ops.importance_score_bwd.default, (torch.zeros(1, 5), _draw(2, 6), x, outer, 1))
