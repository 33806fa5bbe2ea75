"""One list for all ops and both backends: dtypes under autocast, second derivatives, torch.func, torch.export."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from pps_fast.ops import ALL_OPS, boundaries, mixture, peak_mixture, push, residual_norm
from pps_fast.ops.dispatch import BackendError, Op
from tests.support.cases import CASES
from tests.support.compare import assert_agree
from tests.support.op_check import values_of

EACH_OP = pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)
HALF = (torch.bfloat16, torch.float16)


def _dtypes(op: Op, inputs: dict[str, Any], backend: str) -> list[torch.dtype]:
    return [value.dtype for value in values_of(op(**inputs, backend=backend))]


def _first(value: Any, num: int) -> Tensor:
    """A sum of a result, in which its values have different weights."""
    weight = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    return (value * weight).sum() * (1 + num)


def _total(op: Op, inputs: dict[str, Any], backend: str) -> Tensor:
    """[] from all results."""
    return torch.stack([_first(value, num) for num, value in enumerate(values_of(op(**inputs, backend=backend)))]).sum()


@pytest.mark.parametrize("autocast", HALF, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@EACH_OP
def test_both_backends_have_results_of_one_dtype_under_autocast(
    op: Op, dtype: torch.dtype, autocast: torch.dtype
) -> None:
    inputs = CASES[op.name][0].inputs(dtype)
    with torch.autocast("cpu", autocast):
        assert _dtypes(op, inputs, "triton") == _dtypes(op, inputs, "torch")


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
# a build of torch without CUDA has no fake softmax, product or sort on a GPU, which the others need
@pytest.mark.parametrize("op", [boundaries, mixture, peak_mixture, push, residual_norm], ids=lambda op: op.name)
def test_both_backends_have_results_of_one_dtype_under_the_autocast_of_a_gpu(op: Op, dtype: torch.dtype) -> None:
    """On fake tensors: a GPU's autocast makes sums in fp32."""
    inputs = CASES[op.name][0].inputs(dtype)
    was_enabled = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", True)
    try:
        with FakeTensorMode():
            fakes = {
                name: torch.empty(x.shape, dtype=x.dtype, device="cuda") if isinstance(x, Tensor) else x
                for name, x in inputs.items()
            }
            assert _dtypes(op, fakes, "triton") == _dtypes(op, fakes, "torch")
    finally:
        torch.set_autocast_enabled("cuda", was_enabled)


@EACH_OP
def test_under_autocast_both_backends_have_the_same_gradients(op: Op) -> None:
    case, grads = CASES[op.name][0], []
    for backend in ("triton", "torch"):
        inputs = case.inputs(torch.float32, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            total = _total(op, inputs, backend)
        grads.append(torch.autograd.grad(total.float(), [inputs[name] for name in case.wrt]))
    for name, got, expected in zip(case.wrt, *grads, strict=True):
        assert got.dtype == expected.dtype == torch.float32
        # what is left of 8 bits where gradients cancel
        assert_agree(name, got, expected, rtol=5e-2, atol=3e-2 * expected.abs().max().item() + 1e-6)


@pytest.mark.parametrize("power", [1, 2])
@EACH_OP
def test_a_second_derivative_through_a_kernel_is_refused_in_words(op: Op, power: int) -> None:
    """Of a sum too, where the gradient that arrives is a constant."""
    case = CASES[op.name][0]
    for name in case.wrt:
        inputs = case.inputs(torch.float32, requires_grad=True)
        total = sum((value**power).sum() for value in values_of(op(**inputs, backend="triton")))
        (grad,) = torch.autograd.grad(total, inputs[name], create_graph=True)
        with pytest.raises(BackendError, match=rf"{op.name}.*: the kernel's gradient .* use backend='torch'$"):
            torch.autograd.grad(grad.square().sum(), inputs[name])


@EACH_OP
def test_a_second_derivative_of_the_equation_is_right(op: Op) -> None:
    case = CASES[op.name][0]
    inputs = case.inputs(torch.float64)

    def function(*tensors: Tensor) -> Any:
        values = values_of(op(**inputs | dict(zip(case.wrt, tensors, strict=True)), backend="torch"))
        # the log of a mask that all but vanishes changes too fast for finite differences
        return sum(value.clamp(min=-10).sum() * (1 + index) for index, value in enumerate(values))

    leaves = tuple(inputs[name].requires_grad_() for name in case.wrt)
    assert torch.autograd.gradgradcheck(function, leaves, atol=1e-3, rtol=1e-3, fast_mode=True)


@EACH_OP
def test_gradients_of_torch_func_are_those_of_autograd(op: Op) -> None:
    case = CASES[op.name][0]
    inputs, leaves = case.inputs(torch.float32), case.inputs(torch.float32, requires_grad=True)
    expected = torch.autograd.grad(_total(op, leaves, "torch"), [leaves[name] for name in case.wrt])

    def total(chosen: dict[str, Tensor], backend: str) -> Tensor:
        return _total(op, inputs | chosen, backend)

    chosen = {name: inputs[name] for name in case.wrt}
    for backend in ("auto", "torch"):
        got = torch.func.grad(partial(total, backend=backend))(chosen)
        for name, grad in zip(case.wrt, expected, strict=True):
            assert_agree(name, got[name], grad, rtol=1e-5, atol=1e-5)
    with pytest.raises(BackendError, match=f"{op.name}: .* transforms of torch.func need backend='torch'"):
        torch.func.grad(partial(total, backend="triton"))(chosen)


@EACH_OP
def test_an_op_is_mapped_over_a_batch_of_its_inputs(op: Op) -> None:
    case = CASES[op.name][0]
    inputs = case.inputs(torch.float64)
    chosen = {name: inputs[name] for name in case.wrt}
    batch = {name: torch.stack((x, x.flip(0), x * 0.9)) for name, x in chosen.items()}

    def run(part: dict[str, Tensor], backend: str) -> Any:
        return values_of(op(**inputs | part, backend=backend))

    alone = [run({name: x[index] for name, x in batch.items()}, "torch") for index in range(3)]
    for backend in ("auto", "torch"):
        for got, *expected in zip(torch.vmap(partial(run, backend=backend))(batch), *alone, strict=True):
            assert_agree(op.name, got, torch.stack(expected), rtol=1e-12, atol=1e-12)
    with pytest.raises(BackendError, match=f"{op.name}: .* transforms of torch.func need backend='torch'"):
        torch.vmap(partial(run, backend="triton"))(batch)


class _Calls(torch.nn.Module):
    """An op as a module, for torch.export."""

    def __init__(self, op: Op, constants: dict[str, Any], backend: str) -> None:
        super().__init__()
        self.op, self.constants, self.backend = op, constants, backend

    def forward(self, tensors: dict[str, Tensor]) -> Any:
        return self.op(**tensors, **self.constants, backend=self.backend)


# torch's own, about what torch.compile does with torch.autograd.Function
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["torch", "triton"])
@EACH_OP
def test_an_op_is_exported_and_compiled_as_it_is(op: Op, backend: str) -> None:
    inputs = CASES[op.name][0].inputs(torch.float32)
    tensors = {name: x for name, x in inputs.items() if isinstance(x, Tensor)}
    constants = {name: x for name, x in inputs.items() if not isinstance(x, Tensor)}
    module = _Calls(op, constants, backend)
    exported = torch.export.export(module, (tensors,)).module()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for run in (exported, compiled):
        for got, expected in zip(values_of(run(tensors)), values_of(module(tensors)), strict=True):
            assert_agree(op.name, got, expected, rtol=1e-6, atol=1e-6)
    torch.compiler.reset()
