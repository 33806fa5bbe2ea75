"""What every op must do on every case, whatever computes it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.backend import BackendError, Op, use_backend
from tests import oracles
from tests.cases import CASES, Case, to_arrays, to_tensors
from tests.compare import assert_agree, assert_close

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
HALF = (torch.float16, torch.bfloat16)


def leaf(values: Any) -> Tensor:
    """Returns nested numbers as a float64 tensor that wants a gradient."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def over_cases(op: str) -> pytest.MarkDecorator:
    """Parametrizes a test with the op's cases."""
    return pytest.mark.parametrize("case", CASES[op], ids=lambda case: case.name)


def equation_of(op: Op):
    """Returns the equation an op is named after."""
    return getattr(equations, op.name)


def as_one(result: Any) -> Tensor:
    """Returns an op's result; a pair is stacked in front."""
    return torch.stack(result) if isinstance(result, tuple) else result


def _value_and_gradients(function: Any, inputs: dict[str, Any], wrt: tuple[str, ...]) -> tuple[Tensor, list[Tensor]]:
    value = as_one(function(**inputs))
    # weights other than 1, and other than each other
    weight = torch.linspace(-1.3, 1.7, value.numel(), dtype=torch.float64).reshape(value.shape)
    grads = torch.autograd.grad((value.double() * weight).sum(), [inputs[name] for name in wrt])
    return value.detach(), list(grads)


def check_case(op: Op, row: str, case: Case, dtype: torch.dtype, backend: str = "auto") -> None:
    """The op against the loops: result, and all gradients against the equation's in float64.

    Args:
        row: of `tolerances.CAP`.
    """
    inputs = case.inputs(dtype, requires_grad=True)
    rounded = to_arrays(inputs)
    got, got_grads = _value_and_gradients(partial(op, backend=backend), inputs, case.wrt)
    reference, reference_grads = _value_and_gradients(equation_of(op), inputs, case.wrt)
    exact_inputs = to_tensors(rounded, torch.float64, case.wrt)
    oracle = torch.from_numpy(oracles.of_op(op.name, rounded)).double()
    assert_close(row, got, reference, oracle)
    _, oracle_grads = _value_and_gradients(equation_of(op), exact_inputs, case.wrt)
    if case.is_stiff and dtype != torch.float64:
        return
    for got_grad, reference_grad, oracle_grad in zip(got_grads, reference_grads, oracle_grads, strict=True):
        assert_close(row, got_grad, reference_grad, oracle_grad)


def check_non_contiguous(op: Op, case: Case) -> None:
    """Inputs with any strides give the same result as packed ones."""
    packed = case.inputs(torch.float64)
    strided = {name: _strided(value) if isinstance(value, Tensor) else value for name, value in packed.items()}
    floating = [value for value in strided.values() if isinstance(value, Tensor) and value.dim() > 1]
    if all(value.is_contiguous() for value in floating):
        raise AssertionError(f"{case.name}: no input is non-contiguous")
    assert_agree(op.name, as_one(op(**strided)), as_one(op(**packed)), atol=1e-14)


def _strided(value: Tensor) -> Tensor:
    """Returns the same values with a gap between neighbours and the axes stored in reverse."""
    wide = torch.stack((value, torch.zeros_like(value)), -1)
    order = tuple(reversed(range(value.dim())))
    return wide.permute(*order, value.dim()).contiguous().permute(*order, value.dim())[..., 0]


def check_backends(op: Op, case: Case) -> None:
    """'torch' and 'auto' run the equation; 'triton' is refused in words while there is no kernel."""
    inputs = case.inputs(torch.float32)
    expected = as_one(equation_of(op)(**inputs))
    assert_agree(op.name, as_one(op(**inputs, backend="torch")), expected)
    assert_agree(op.name, as_one(op(**inputs)), expected)
    if op.reasons(**inputs):
        with pytest.raises(BackendError, match=f"{op.name}: backend 'triton' cannot serve this call: .+Use 'auto'"):
            op(**inputs, backend="triton")
        with use_backend("triton"), pytest.raises(BackendError, match=op.name):
            op(**inputs)
