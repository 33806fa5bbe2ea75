"""Gradients of a linear layer are those of autograd, are added to what is there, and know the ReLU behind the layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.kernels import linear_gradient as kernel
from pps_fast.ops.linear_gradient import GradientSums as GradientSums
from pps_fast.ops.linear_gradient import weight_gradient
from pps_fast.ops.registration import is_interpreted
from tests.support.compare import assert_agree

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
# relative to the largest value; sums in fp32 of values that are exact in any dtype
NEAR = 2e-6


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (33, 129), (70, 16)])
def test_a_bias_gets_the_sum_over_rows_on_top(rows: int, width: int, dtype: torch.dtype, poisoned_empty: None) -> None:
    grad, bias = _draw(rows, width, dtype=dtype), _draw(width, seed=1)
    before, expected = grad.clone(), bias.double() + grad.double().sum(0)
    torch.ops.pps_fast.linear_gradient(grad, None, bias)
    assert_agree("bias", bias.double(), expected, rtol=NEAR)
    assert torch.equal(grad, before)


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_relu_s_gradient_is_taken_in_place(dtype: torch.dtype, poisoned_empty: None) -> None:
    x, weight, bias = (_draw(*shape, seed=2).double() for shape in ((40, 3), (5, 3), (5,)))
    leaves = [value.requires_grad_() for value in (x, weight, bias)]
    result = torch.relu(torch.nn.functional.linear(*leaves))
    grad = _draw(40, 5, seed=3).to(dtype)
    result.backward(grad.double())
    assert 0 < (result == 0).sum() < result.numel()
    got = torch.zeros(5)
    torch.ops.pps_fast.linear_gradient(grad, result.detach().to(dtype), got)
    assert_agree("bias", got.double(), bias.grad, rtol=NEAR)
    assert_agree("x", grad.double() @ weight.detach(), x.grad, atol=1e-12 if dtype == torch.float32 else 1e-12)


@needs_interpreter
def test_any_number_of_programs_and_parts_sums_every_row_once(
    monkeypatch: pytest.MonkeyPatch, poisoned_empty: None
) -> None:
    monkeypatch.setattr(kernel, "_BLOCK_R", 4)
    monkeypatch.setattr(kernel, "_MAX_PROGRAMS", 5)
    monkeypatch.setattr(kernel, "_TOTAL_P", 2)
    monkeypatch.setattr(kernel, "_TOTAL_BLOCKS", 2)
    assert kernel.programs(4 * 17 + 1, 6) == (5, 1) and kernel.programs(3, 700) == (1, 6)
    for rows in (1, 20, 69):
        grad, bias = _draw(rows, 6), torch.zeros(6)
        torch.ops.pps_fast.linear_gradient(grad, None, bias)
        assert_agree(f"{rows} rows", bias.double(), grad.double().sum(0), rtol=NEAR)


@needs_interpreter
def test_rows_may_be_farther_apart_than_they_are_long() -> None:
    grad, bias = torch.full((50, 64), torch.nan)[:, :5], torch.ones(5)
    grad.copy_(_draw(50, 5))
    torch.ops.pps_fast.linear_gradient(grad, None, bias)
    assert_agree("bias", bias.double(), 1 + grad.double().sum(0), rtol=NEAR)


@needs_interpreter
@pytest.mark.parametrize(("first", "num_read"), [(0, 16), (40, 16), (59, 5)])
def test_whole_vectors_are_read_where_the_memory_of_the_rows_reaches_so_far(first: int, num_read: int) -> None:
    memory, bias = torch.full((20, 64), torch.nan), torch.ones(5)
    grad = memory[:, first : first + 5]
    grad.copy_(_draw(20, 5))
    assert kernel._readable(grad) == num_read
    torch.ops.pps_fast.linear_gradient(grad, torch.ones(20, 64)[:, first : first + 5], bias)
    # with a ReLU they would be written, too
    assert memory.isnan().sum() == 20 * 59
    torch.ops.pps_fast.linear_gradient(grad, None, bias)
    assert_agree("bias", bias.double(), 1 + 2 * grad.double().sum(0), rtol=NEAR)


@needs_interpreter
def test_what_lies_behind_the_columns_is_read_and_not_summed() -> None:
    memory, bias = torch.full((20, 64), torch.finfo(torch.float32).max), torch.ones(5)
    grad = memory[:, :5]
    grad.copy_(_draw(20, 5))
    assert kernel._readable(grad) == 16
    # the interpreter's sums would overflow, which is an error of the tests
    torch.ops.pps_fast.linear_gradient(grad, None, bias)
    assert_agree("bias", bias.double(), 1 + grad.double().sum(0), rtol=NEAR)


@needs_interpreter
def test_totals_go_to_their_targets() -> None:
    part = _draw(7, 3, 40)
    targets = [_draw(40, seed=seed) for seed in range(3)]
    expected = [target.double() + part[:, index].double().sum(0) for index, target in enumerate(targets)]
    kernel.add_totals(part, targets)
    for got, wanted in zip(targets, expected, strict=True):
        assert_agree("target", got.double(), wanted, rtol=NEAR)


@needs_interpreter
def test_biases_of_layers_side_by_side_get_the_sums_of_their_columns() -> None:
    grad, biases = _draw(37, 10, dtype=torch.bfloat16), _draw(3, 5, seed=1)
    expected = biases.double()
    expected[::2] += grad.double().view(37, 2, 5).sum(0)
    torch.ops.pps_fast.linear_gradient(grad, None, biases[::2])
    assert_agree("biases", biases.double(), expected, rtol=NEAR)


@pytest.mark.parametrize("heads", [(), (3,)], ids=["one", "of each head"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_gets_a_product_that_is_never_rounded_on_top(dtype: torch.dtype, heads: tuple[int, ...]) -> None:
    grad, x = _draw(*heads, 50, 4, dtype=dtype), _draw(*heads, 50, 3, seed=1, dtype=dtype)
    weight = _draw(*heads, 4, 3, seed=2)
    expected = weight.double() + grad.double().mT @ x.double()
    weight_gradient(grad, x, weight)
    assert_agree("weight", weight.double(), expected, rtol=NEAR)


@needs_interpreter
def test_the_registered_operators_pass_opcheck() -> None:
    grad, result, bias = _draw(9, 5), _draw(9, 5, seed=1), torch.zeros(5)
    torch.library.opcheck(torch.ops.pps_fast.linear_gradient.default, (grad, result, bias))
    torch.library.opcheck(torch.ops.pps_fast.linear_gradient.default, (_draw(9, 10), None, torch.zeros(3, 5)[::2]))
    operator = torch.ops.pps_fast.weight_gradient.default
    torch.library.opcheck(operator, (grad, _draw(9, 2), torch.zeros(5, 2)))
    torch.library.opcheck(operator, (_draw(3, 9, 5), _draw(3, 9, 2), torch.zeros(3, 5, 2)))


@pytest.mark.gpu
@pytest.mark.parametrize("heads", [(), (3,)], ids=["one", "of each head"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_products_are_added_in_fp32(dtype: torch.dtype, heads: tuple[int, ...]) -> None:
    draws = (_draw(*heads, 50, 16, dtype=dtype), _draw(*heads, 50, 8, dtype=dtype), _draw(*heads, 16, 8))
    grad, x, weight = (value.cuda() for value in draws)
    expected = weight.double() + grad.double().mT @ x.double()
    torch.ops.pps_fast.weight_gradient(grad, x, weight)
    assert_agree("weight", weight.double(), expected, rtol=1e-5)
