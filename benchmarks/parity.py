"""Every kernel of every op, compiled for the GPU, against the float64 equation: a stage of the GPU report."""

from __future__ import annotations

import time
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
from benchmarks.workers import run_tasks
from pps_fast.ops import ALL_OPS, OPS
from pps_fast.ops.dispatch import Op
from tests.support.cases import CASES, Case, to_arrays, to_tensors
from tests.support.compare import assert_close
from tests.support.op_check import equation_of, values_and_gradients
from tests.support.tolerances import COMPILED

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# ops that multiply matrices are also checked with products rounded to tf32, 10 bits of mantissa; a gradient is the end
# of a chain of three. The largest error seen on an H200 is 5.0e-3 (masked_attention, gradient of a bias), others 2.5e-3
TF32_CAP = 1e-2


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
    approximation = COMPILED if device.type == "cuda" else 0.0
    for name in oracle:
        errors[name] = relative_norm(got[name], oracle[name])
        try:
            if cap is None:
                assert_close(caps, got[name], reference[name], oracle[name], approximation)
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

    On a GPU each op and dtype is a process of its own, several at once: most of the time goes to compiling.
    """
    tasks: list[tuple[str, str]] = []
    for op in ALL_OPS:
        if op.reasons(**CASES[op.name][0].inputs(torch.float32)) == [f"{op.name} has no fused kernel"]:
            report.add("parity", "absent", op=op.name, why="no fused kernel")
        else:
            tasks += [(op.name, dtype) for dtype in precisions_of(op)]
    if report.is_dry:
        called = ((task, row) for task in tasks for row in _dry_rows(report, *task))
    else:
        # those with most cases first, so that none of them is the last
        tasks.sort(key=lambda task: -len(CASES[task[0]]))
        called = run_tasks(cases_of_op, tasks, time.monotonic() + report.left())
    for (name, dtype), row in called:
        report.add("parity", **{"op": name, "dtype": dtype, **row})


def _dry_rows(report: Report, name: str, dtype: str) -> Iterator[Row]:
    """The first case of an op, in this process, unless time is spent."""
    if report.left() <= 0:
        yield {"status": "not run", "why": "its share of the budget is spent"}
    else:
        yield parity_row(name, CASES[name][0], dtype, "cpu")


def cases_of_op(name: str, dtype: str) -> Iterator[Row]:
    """Yields the row of each case of an op on the GPU, until one breaks the CUDA context."""
    for case in CASES[name]:
        yield parity_row(name, case, dtype, "cuda")
        if not is_alive(torch.device("cuda")):
            yield {
                "status": "not run",
                "why": "the CUDA context is broken; the cases of this op after this one were not run",
            }
            return


def parity_row(name: str, case: Case, dtype: str, device: str) -> Row:
    """Returns the columns of a case: status, errors, and why if it is not right."""
    file, op = next((file, op) for file, ops in OPS.items() for op in ops if op.name == name)
    is_tf32 = dtype == "tf32"
    try:
        with matmul_precision("high" if is_tf32 else "highest"):
            kind = torch.float32 if is_tf32 else DTYPES[dtype]
            status, figures = check_parity(op, file, case, kind, torch.device(device), TF32_CAP if is_tf32 else None)
    # whatever a kernel breaks on, the other kernels are checked too
    except Exception as error:
        figures, status = {"why": f"{type(error).__name__}: {error}"[:2000]}, "failed"
    return {"case": case.name, "status": status, **figures}


def is_alive(device: torch.device) -> bool:
    """Whether the device still computes: after an illegal access every call raises."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
