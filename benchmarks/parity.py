"""Every kernel of every op, compiled for the GPU, against the float64 equation: a stage of the GPU report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.counts import PRODUCTS
from benchmarks.ops import relative_norm
from benchmarks.report import Report
from benchmarks.rows import Row
from benchmarks.timing import matmul_precision
from pps_fast.ops import OPS
from pps_fast.ops.dispatch import Op
from tests.support.cases import CASES, Case, to_arrays, to_tensors
from tests.support.compare import assert_close
from tests.support.op_check import equation_of, values_and_gradients

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# ops that multiply matrices are also checked with products rounded to tf32: 10 bits of mantissa and sums of hundreds
TF32_CAP = 2e-3


@contextmanager
def poisoned_empty() -> Iterator[None]:
    """Fills uninitialized floating memory with NaN, so that a result that was not written is seen."""
    allocate = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        value = allocate(*args, **kwargs)
        return value.fill_(float("nan")) if value.is_floating_point() else value

    with patch.object(torch, "empty", poisoned):
        yield


def _on(device: torch.device, inputs: dict[str, Any], wrt: tuple[str, ...]) -> dict[str, Any]:
    """Returns inputs on a device, those in `wrt` as leaves."""
    moved = {name: v.detach().to(device) if isinstance(v, Tensor) else v for name, v in inputs.items()}
    return {name: value.requires_grad_() if name in wrt else value for name, value in moved.items()}


def results_of(function: Callable[..., Any], inputs: dict[str, Any], wrt: tuple[str, ...]) -> dict[str, Tensor]:
    """Returns results and gradients by name, on the CPU."""
    return {name: result.cpu() for name, result in values_and_gradients(function, inputs, wrt).items()}


def check_parity(
    op: Op, caps: str, case: Case, dtype: torch.dtype, device: torch.device, cap: float | None = None
) -> tuple[str, Row]:
    """Compares a kernel with the float64 equation; returns a status and what was found.

    Args:
        caps: row of `tests.support.tolerances.CAP`.
        cap: the largest error instead of that row's, whatever the error of the equation in this dtype.
    """
    inputs = case.inputs(dtype)
    arguments = _on(device, inputs, case.wrt)
    reasons = op.reasons(**arguments)
    if reasons:
        return "refused", {"why": "; ".join(reasons)}
    exact = to_tensors(to_arrays(inputs), torch.float64, case.wrt)
    oracle = results_of(equation_of(op), exact, case.wrt)
    reference = results_of(equation_of(op), arguments, case.wrt)
    with poisoned_empty():
        got = results_of(partial(op, backend="triton"), arguments, case.wrt)
        again = results_of(partial(op, backend="triton"), arguments, case.wrt)
    errors, faults = {}, []
    for name in oracle:
        errors[name] = relative_norm(got[name], oracle[name])
        try:
            if cap is None:
                assert_close(caps, got[name], reference[name], oracle[name])
            # a NaN is not below it
            elif not errors[name] <= cap:
                raise AssertionError(f"{caps}: error {errors[name]:.3e} > cap {cap:.0e}")
        except AssertionError as error:
            faults.append(f"{name}: {error}")
    if not all(torch.equal(got[name], again[name]) for name in oracle):
        faults.append("two runs differ")
    return ("failed" if faults else "ok"), {"errors": errors, **({"why": "; ".join(faults)} if faults else {})}


def precisions_of(op: Op) -> list[str]:
    """Dtypes an op is checked in, and "tf32" for the ops it exists for."""
    return [*DTYPES, *(["tf32"] if op.name in PRODUCTS else [])]


def parity(report: Report) -> None:
    """Every case of every op that has a kernel, in every dtype; a dry run takes one case of each.

    The first case of every op comes before the second of any, so that a spent budget leaves no op unseen.
    """
    rounds: list[tuple[Op, str, list[Case]]] = []
    for file, ops in OPS.items():
        for op in ops:
            if op.reasons(**CASES[op.name][0].inputs(torch.float32)) == [f"{op.name} has no fused kernel"]:
                report.add("parity", "absent", op=op.name, why="no fused kernel")
            else:
                rounds.append((op, file, CASES[op.name][:1] if report.is_dry else CASES[op.name]))
    longest = max((len(cases) for _, _, cases in rounds), default=0)
    for index in range(longest):
        for op, file, cases in rounds:
            for name in precisions_of(op) if index < len(cases) else ():
                if not _parity_case(report, op, file, cases[index], name):
                    return


def _parity_case(report: Report, op: Op, file: str, case: Case, dtype: str) -> bool:
    """Adds a row; False if no other case can follow."""
    about = {"op": op.name, "case": case.name, "dtype": dtype}
    if report.left() <= 0:
        report.add("parity", "not run", **about, why="its share of the budget is spent; the cases after it neither")
        return False
    is_tf32 = dtype == "tf32"
    try:
        with matmul_precision("high" if is_tf32 else "highest"):
            kind = torch.float32 if is_tf32 else DTYPES[dtype]
            status, figures = check_parity(op, file, case, kind, report.device, TF32_CAP if is_tf32 else None)
    # whatever a kernel breaks on, the other kernels are checked too
    except Exception as error:
        figures, status = {"why": f"{type(error).__name__}: {error}"}, "failed"
    report.add("parity", status, **about, **figures)
    if status == "failed" and not is_alive(report.device):
        report.add("parity", "not run", why="the CUDA context is broken; the cases after this one were not run")
        return False
    return True


def is_alive(device: torch.device) -> bool:
    """Whether the device still computes: after an illegal access every call raises."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
