"""The only comparisons of the test suite. Both helpers raise AssertionError and return nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.tolerances import CAP


def assert_close(op: str, got: Tensor, reference: Tensor, oracle: Tensor, approximation: float = 0.0) -> None:
    """Asserts that an implementation is about as near to the float64 oracle as its reference is.

    err(got) <= min(2 * err(reference) + 2 * eps(dtype) + approximation, CAP[op][dtype]),
    err(x) = ||x - oracle|| / ||oracle|| (||x|| where the oracle is zero everywhere). A NaN or infinity never passes.

    Args:
        op: row of `tolerances.CAP`.
        got: any shape but empty, what is tested.
        reference: same shape and dtype as got, the equation in that dtype.
        oracle: same shape, float64.
        approximation: what the hardware's own functions may add, which the equation does not use (see `tolerances`).
    """
    _check_same_shape(op, got=got, reference=reference, oracle=oracle)
    if got.dtype != reference.dtype:
        raise AssertionError(f"{op}: got is {got.dtype}, reference {reference.dtype}")
    if oracle.dtype != torch.float64:
        raise AssertionError(f"{op}: the oracle is {oracle.dtype}, expected torch.float64")
    if op not in CAP or got.dtype not in CAP[op]:
        raise AssertionError(f"{op}: no cap for {got.dtype}; add one to tolerances.py with the measured error")
    _check_finite(op, got=got, reference=reference, oracle=oracle)
    got_error, reference_error = _relative_norm(got, oracle), _relative_norm(reference, oracle)
    cap = CAP[op][got.dtype]
    allowed = min(2 * reference_error + 2 * torch.finfo(got.dtype).eps + approximation, cap)
    if not got_error <= allowed:
        raise AssertionError(
            f"{op} ({got.dtype}, {list(got.shape)}): error {got_error:.3e} > allowed {allowed:.3e} "
            f"(reference's error {reference_error:.3e}, cap {cap:.0e})"
        )


def assert_agree(name: str, got: Any, expected: Any, *, atol: float = 0.0, rtol: float = 0.0) -> None:
    """Asserts that every element is within atol + rtol * max|expected|; exact with the defaults.

    Args:
        name: what is compared, for the message.
        got, expected: tensors, arrays or numbers of the same shape, not empty, and of the same kind (floating,
            integer or boolean; widths may differ). A NaN on either side never passes.
        atol: absolute part of the tolerance.
        rtol: part relative to the largest |expected|.
    """
    got, expected = torch.as_tensor(got).detach().cpu(), torch.as_tensor(expected).detach().cpu()
    _check_same_shape(name, got=got, expected=expected)
    if _kind(got) != _kind(expected):
        raise AssertionError(f"{name}: got is {got.dtype}, expected {expected.dtype}")
    if not got.is_floating_point():
        _assert_equal_integers(name, got, expected)
        return
    _check_finite(name, got=got, expected=expected)
    error = (got.double() - expected.double()).abs()
    scale = expected.double().abs().max().item()
    allowed = atol + rtol * scale
    if not error.max().item() <= allowed:
        worst = int(error.argmax())
        index = [int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape)]
        raise AssertionError(
            f"{name} {list(got.shape)}: largest error {error.max().item():.3e} > allowed {allowed:.3e} at {index} "
            f"(got {got.flatten()[worst].item():.9g}, expected {expected.flatten()[worst].item():.9g}, "
            f"max|expected| {scale:.3e})"
        )


def _assert_equal_integers(name: str, got: Tensor, expected: Tensor) -> None:
    differs = got != expected
    if differs.any():
        worst = int(differs.flatten().int().argmax())
        raise AssertionError(
            f"{name} {list(got.shape)}: {int(differs.sum())} of {got.numel()} elements differ, the first at flat index "
            f"{worst} (got {got.flatten()[worst].item()}, expected {expected.flatten()[worst].item()})"
        )


def _check_same_shape(name: str, **tensors: Tensor) -> None:
    shapes = {side: list(value.shape) for side, value in tensors.items()}
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        raise AssertionError(f"{name}: shapes differ: {shapes}")
    if any(value.numel() == 0 for value in tensors.values()):
        raise AssertionError(f"{name}: nothing to compare, the shape is {next(iter(shapes.values()))}")


def _check_finite(name: str, **tensors: Tensor) -> None:
    for side, value in tensors.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise AssertionError(f"{name}: {side} has {bad} NaN or infinite of {value.numel()} elements")


def _relative_norm(value: Tensor, oracle: Tensor) -> float:
    error = torch.linalg.vector_norm(value.detach().double() - oracle.detach())
    scale = torch.linalg.vector_norm(oracle.detach())
    return (error / scale if scale > 0 else error).item()


def _kind(value: Tensor) -> str:
    if value.dtype == torch.bool:
        return "boolean"
    return "floating" if value.is_floating_point() else "integer"
