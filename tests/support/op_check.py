"""What every op must do on every case, whatever computes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast import equations
from pps_fast.alignment import equations as alignment
from pps_fast.ops.dispatch import BackendError, Op, use_backend
from tests.support import oracles
from tests.support.cases import CASES, Case, to_arrays, to_tensors
from tests.support.compare import assert_agree, assert_close

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
HALF = (torch.float16, torch.bfloat16)


def leaf(values: Any) -> Tensor:
    """Returns nested numbers as a float64 tensor that wants a gradient."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def over_cases(op: str) -> pytest.MarkDecorator:
    """Parametrizes a test with the op's cases."""
    return pytest.mark.parametrize("case", CASES[op], ids=lambda case: case.name)


def equation_of(op: Op):
    """Returns the equation an op is named after, of the paper's page or of the alignment's."""
    return getattr(alignment if hasattr(alignment, op.name) else equations, op.name)


def values_of(result: Any) -> tuple[Any, ...]:
    """Returns an op's results, one or several, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def values_and_gradients(
    function: Callable[..., Any], inputs: dict[str, Any], wrt: tuple[str, ...]
) -> dict[str, Tensor]:
    """Returns the results ("value", or "value 0", "value 1") and the gradients ("gradient of center") by name, for an
    incoming gradient of many values that differ between the results."""
    values = values_of(function(**inputs))
    total: Any = 0
    for index, value in enumerate(values):
        weight = torch.linspace(-1.3 - index, 1.7, value.numel(), dtype=torch.float64, device=value.device)
        total = total + (value.double() * weight.reshape(value.shape)).sum()
    grads = torch.autograd.grad(total, [inputs[name] for name in wrt])
    return name_values(values) | {f"gradient of {name}": grad.detach() for name, grad in zip(wrt, grads, strict=True)}


def name_values(values: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Returns results by the names that `values_and_gradients` gives them."""
    names = ["value"] if len(values) == 1 else [f"value {index}" for index in range(len(values))]
    return {name: value.detach() for name, value in zip(names, values, strict=True)}


def check_case(op: Op, row: str, case: Case, dtype: torch.dtype, backend: str = "auto") -> None:
    """The op against the loops: result, and all gradients against the equation's in float64.

    Args:
        row: of `tolerances.CAP`.
    """
    inputs = case.inputs(dtype, requires_grad=True)
    rounded = to_arrays(inputs)
    got = values_and_gradients(partial(op, backend=backend), inputs, case.wrt)
    reference = values_and_gradients(equation_of(op), inputs, case.wrt)
    exact = values_and_gradients(equation_of(op), to_tensors(rounded, torch.float64, case.wrt), case.wrt)
    loops = values_of(oracles.of_op(op.name, rounded))
    exact |= name_values(tuple(torch.as_tensor(value).double() for value in loops))
    assert got.keys() == reference.keys() == exact.keys()
    for name in got:
        assert_close(row, got[name], reference[name], exact[name])


def check_non_contiguous(op: Op, case: Case) -> None:
    """Inputs with any strides give the same result as packed ones."""
    packed = case.inputs(torch.float64)
    strided = {name: _strided(value) if isinstance(value, Tensor) else value for name, value in packed.items()}
    floating = [value for value in strided.values() if isinstance(value, Tensor) and value.dim() > 1]
    if all(value.is_contiguous() for value in floating):
        raise AssertionError(f"{case.name}: no input is non-contiguous")
    for got, expected in zip(values_of(op(**strided)), values_of(op(**packed)), strict=True):
        assert_agree(op.name, got, expected, atol=1e-13)


def _strided(value: Tensor) -> Tensor:
    """Returns the same values with a gap between neighbors and the axes stored in reverse."""
    wide = torch.stack((value, torch.zeros_like(value)), -1)
    order = tuple(reversed(range(value.dim())))
    return wide.permute(*order, value.dim()).contiguous().permute(*order, value.dim())[..., 0]


def check_backends(op: Op, case: Case) -> None:
    """'torch' and 'auto' run the equation; 'triton' is refused in words while there is no kernel."""
    inputs = case.inputs(torch.float32)
    expected = values_of(equation_of(op)(**inputs))
    for options in ({"backend": "torch"}, {}):
        for got, value in zip(values_of(op(**inputs, **options)), expected, strict=True):
            assert_agree(op.name, got, value)
    if op.reasons(**inputs):
        with pytest.raises(BackendError, match=f"{op.name}: backend 'triton' cannot serve this call: .+Use 'auto'"):
            op(**inputs, backend="triton")
        with use_backend("triton"), pytest.raises(BackendError, match=op.name):
            op(**inputs)
