"""Seconds of every op at the shapes of a training step, beside baselines: python -m benchmarks.ops --op push

For forward, backward and both: the eager equation, torch.compile of it, our Triton kernel (on a GPU; never its
interpreter) and for attention what torch offers. The op's tests run first, and every implementation must agree with the
float64 equation on the inputs it is timed on. One that cannot serve is a row with its reason. Rows are JSON lines with
the counted least bytes and operations and the share of the measured ceiling that bounds them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from benchmarks.baselines import Implementation, implementations_of
from benchmarks.cases import BATCH_SIZE, DATASETS, Inputs, OpCase, cases_of, wrt_of
from benchmarks.counts import MODES, PRODUCTS, Work, count
from benchmarks.rows import ROOT, Row, about_machine, append, short, table
from benchmarks.timing import PRECISIONS, Ceilings, ceilings, matmul_precision, side_stream, timed
from pps_fast.devices import Device, choose_device, keep_freed_memory, set_threads
from pps_fast.ops import ALL_OPS, OPS
from pps_fast.ops.dispatch import Op
from tests.support.op_check import equation_of, values_and_gradients, values_of

OpName = Literal[tuple(op.name for op in ALL_OPS)]  # type: ignore[valid-type]
DatasetName = Literal[tuple(DATASETS)]  # type: ignore[valid-type]
DType = Literal[tuple(PRECISIONS)]  # type: ignore[valid-type]

# input sets that are timed in turn
NUM_SETS = 3
# largest relative norm of a difference from the float64 equation, of any value or gradient
AGREEMENT = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
# implementations that this project answers for
OURS = ("equation", "triton")
# of a CPU run, which has to end one day
CPU_BATCH_SIZE = 4


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        seconds: to spend on each row, about.
        implementations: names of those that run; None for all.
        use_compile: torch.compile on a CPU too.
    """

    seconds: float = 0.3
    implementations: tuple[str, ...] | None = None
    use_compile: bool = False


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    op: OpName | None = None
    """one op; all of them without"""
    device: Device = "auto"
    """where"""
    dataset: DatasetName | None = None
    """shapes of one data set; of both without"""
    dtype: DType | None = None
    """one precision; without, those the device is fast in: fp32 alone on a CPU"""
    batch_size: int | None = None
    """samples; the training batch on a GPU and few on a CPU without"""
    seconds: float = 0.3
    """to spend on each row, about"""
    compile: bool = False
    """also torch.compile on a CPU"""
    threads: int | None = None
    """CPU threads; torch's choice without one"""
    tests: bool = True
    """run each op's tests first; no number of an op is printed whose tests fail"""
    out: Path | None = None
    """append the rows here, as JSON lines"""


def exact_of(case: OpCase, inputs: Inputs) -> dict[str, Tensor]:
    """Values and gradients of the equation in float64, on the inputs as rounded."""
    wide = {name: x.detach().double() if name in wrt_of(inputs) else x for name, x in inputs.items()}
    wide = {name: x.requires_grad_() if name in wrt_of(inputs) else x for name, x in wide.items()}
    return values_and_gradients(equation_of(_op(case.op)), wide, wrt_of(inputs))


def _op(name: str) -> Op:
    return next(op for op in ALL_OPS if op.name == name)


def error_of(implementation: Implementation, inputs: Inputs, exact: dict[str, Tensor]) -> float:
    """Returns the largest relative norm of what differs from `exact`, over values and gradients; infinite for a NaN."""
    prepared = implementation.prepare(inputs)
    got = values_and_gradients(implementation.function, prepared, wrt_of(inputs))
    return max(relative_norm(got[name], oracle) for name, oracle in exact.items())


def relative_norm(got: Tensor, oracle: Tensor) -> float:
    """Returns the norm of a difference over that of `oracle`, or itself where that is 0; infinite for a NaN."""
    if got.numel() != oracle.numel():
        # the gradient of a mask [G, 1, Q, T] made of a bias [G, T] or [B, N, T]
        got = got.flatten(1, -2).double().sum(1)
    difference = torch.linalg.vector_norm(got.double().reshape(oracle.shape) - oracle)
    scale = torch.linalg.vector_norm(oracle)
    error = (difference / scale if scale > 0 else difference).item()
    return error if error == error else float("inf")


def call_of(implementation: Implementation, inputs: Inputs, mode: str) -> Callable[[], Any]:
    """Returns a function without arguments that does what is timed; all that it needs is made here."""
    inputs, names = implementation.prepare(inputs), wrt_of(inputs)
    leaves = [inputs[name] for name in names]
    results = values_of(implementation.function(**inputs))
    grads = [torch.randn_like(result) for result in results]

    def forward() -> Any:
        return implementation.function(**inputs)

    def backward() -> Any:
        return torch.autograd.grad(results, leaves, grads, retain_graph=True)

    def both() -> Any:
        return torch.autograd.grad(values_of(implementation.function(**inputs)), leaves, grads)

    return {"forward": forward, "backward": backward, "both": both}[mode]


def _checked(implementation: Implementation, case: OpCase, inputs: Inputs, exact: dict[str, Tensor]) -> Row:
    """Columns of agreement, and the seconds of the first calls where they compile; with a status if it is refused."""
    begin = time.perf_counter()
    error, limit = error_of(implementation, inputs, exact), AGREEMENT[case.dtype]
    if error > limit:
        why = f"differs from the float64 equation by {error:.2e} (relative norm), at most {limit:.0e} is timed"
        return {"status": "failed", "why": why}
    compiling = {"compile_seconds": round(time.perf_counter() - begin, 2)} if implementation.is_compiled else {}
    return {"error": short(error, 3), **compiling}


def _rates(work: Work, seconds: float, ceiling: Ceilings, dtype: str) -> Row:
    share, bound = ceiling.share(work, seconds, dtype)
    rates = {"gb_per_s": short(work.bytes / seconds / 1e9), "tflop_per_s": short(work.flops / seconds / 1e12)}
    return {"bytes": work.bytes, "flops": work.flops, **rates, "share": short(share, 3), "bound": bound}


def measure(case: OpCase, device: torch.device, ceiling: Ceilings, settings: Settings) -> Iterator[Row]:
    """Yields the rows of every implementation and mode of a case; status is ok, failed or refused."""
    with matmul_precision(PRECISIONS[case.dtype][1]), side_stream(device):
        sets = [case.inputs(device, draw, requires_grad=True) for draw in range(NUM_SETS)]
        about = {"op": case.op, "case": case.site, "dataset": case.dataset, "dtype": case.dtype}
        about["batch_size"] = case.batch_size
        exact: dict[str, Tensor] = {}
        for implementation in implementations_of(_op(case.op), sets[0], settings.use_compile):
            if settings.implementations is not None and implementation.name not in settings.implementations:
                continue
            row = {**about, "implementation": implementation.name}
            if implementation.why_not is not None:
                yield {**row, "mode": "all", "status": "refused", "why": implementation.why_not}
                continue
            exact = exact or exact_of(case, sets[0])
            try:
                for measured in _measure_one(implementation, case, sets, exact, ceiling, settings.seconds):
                    yield {**row, **measured}
            # whatever an implementation breaks on, the others are measured
            except Exception as error:
                yield {**row, "mode": "all", "status": "failed", "why": f"{type(error).__name__}: {error}"}


def _measure_one(
    implementation: Implementation,
    case: OpCase,
    sets: Sequence[Inputs],
    exact: dict[str, Tensor],
    ceiling: Ceilings,
    seconds: float,
) -> Iterator[Row]:
    if implementation.is_compiled:
        torch._dynamo.reset()
    # a compiled backward pass gives its saved tensors away, and is timed more than once
    with torch._functorch.config.patch(donated_buffer=False):
        checked = _checked(implementation, case, sets[0], exact)
        if "status" in checked:
            yield {"mode": "all", **checked}
            return
        work, device = count(case.op, sets[0]), next(iter(exact.values())).device
        for mode in MODES:
            times = timed([call_of(implementation, inputs, mode) for inputs in sets], device, seconds).values()
            dtype = case.dtype if case.op in PRODUCTS else "fp32"
            rates = _rates(work[mode], times["seconds_median"], ceiling, dtype)
            yield {"mode": mode, "status": "ok", **times, **rates, **checked}


def without_times(row: Row) -> Row:
    """A row of a trial: what was counted and checked, and nothing that was measured."""
    measured = ("seconds", "compile_seconds", "gb_per_s", "tflop_per_s", "share", "bound", "repetitions", "ceilings")
    return {name: value for name, value in row.items() if not name.startswith(measured)}


def report(rows: Sequence[Row]) -> str:
    """Returns the rows as a table, and below it what was not timed and why."""
    header = ("op", "case", "precision", "mode", "implementation", "microseconds: median (20 %, 80 %)", "GB/s")
    lines: list[tuple[Any, ...]] = []
    absent: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            reason = (row["implementation"], row["status"], row["why"].splitlines()[0])
            absent.setdefault(reason, []).append(row["op"])
            continue
        case = f"{row['dataset']} {row['case']}, B = {row['batch_size']}"
        cells: tuple[Any, ...] = ("not measured", "", "", "")
        if "seconds_median" in row:
            times = [f"{1e6 * row[f'seconds_{name}']:.4g}" for name in ("median", "q20", "q80")]
            share = f"{100 * row['share']:.3g} % of {row['bound']}"
            cells = (f"{times[0]} ({times[1]}, {times[2]})", row["gb_per_s"], row["tflop_per_s"], share)
        names = (row["op"], case, row["dtype"], row["mode"], row["implementation"])
        lines.append((*names, *cells, f"{row['error']:.1e}"))
    shown = table((*header, "TFLOP/s", "share of the ceiling", "relative error"), lines)
    shown += ["", "Fewer microseconds, a larger share and a smaller error are better."]
    for (implementation, status, why), ops in absent.items():
        cases = f"{len(ops)} cases ({', '.join(dict.fromkeys(ops))})"
        shown += ["", f"* {implementation}, {cases}: **{status}**, {why}"]
    return "\n".join(shown)


def run_tests(file: str) -> tuple[bool, str]:
    """Runs the tests of a file of ops, tests/ops/test_<file>.py; returns whether they pass, and their output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/ops/test_{file}.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def red_ops(chosen: str | None) -> dict[str, str]:
    """Runs the tests of an op, of all without one; returns the ops whose tests fail and why they are not measured."""
    red: dict[str, str] = {}
    for file, members in OPS.items():
        names = [op.name for op in members if chosen in (None, op.name)]
        passed, output = run_tests(file) if names else (True, "")
        if not passed:
            print(f"{output}\nerror: tests/ops/test_{file}.py fails; {', '.join(names)}: nothing is measured")
            red |= dict.fromkeys(names, f"tests/ops/test_{file}.py fails")
    return red


def chosen_cases(arguments: Arguments, device: torch.device) -> list[OpCase]:
    """The cases the arguments name."""
    is_cuda = device.type == "cuda"
    datasets = (arguments.dataset,) if arguments.dataset else ("charades", "activitynet")
    dtypes = (arguments.dtype,) if arguments.dtype else tuple(PRECISIONS) if is_cuda else ("fp32",)
    batch_size = arguments.batch_size or (BATCH_SIZE if is_cuda else CPU_BATCH_SIZE)
    cases = cases_of(datasets, dtypes, batch_size)
    return [case for op in ALL_OPS if arguments.op in (None, op.name) for case in cases[op.name]]


def main(arguments: Arguments) -> int:
    """Runs the tests, prints rows and a table; returns the exit status: 1 if tests, an equation or a kernel failed."""
    device = choose_device(arguments.device)
    set_threads(arguments.threads)
    keep_freed_memory()
    red = red_ops(arguments.op) if arguments.tests else {}
    cases = [case for case in chosen_cases(arguments, device) if case.op not in red]
    about: Row = {**about_machine(device), "has_run_tests": arguments.tests}
    refused = {"implementation": "all", "mode": "all", "status": "refused"}
    rows: list[Row] = [{"op": op, **refused, "why": why} for op, why in red.items()]
    append(arguments.out, [{**row, **about} for row in rows])
    if cases:
        ceiling = ceilings(device, [case.dtype for case in cases])
        about["ceilings"] = ceiling.values()
    settings = Settings(arguments.seconds, use_compile=arguments.compile)
    for case in cases:
        print(f"{case.op}, {case.name}, {case.dtype}", file=sys.stderr, flush=True)
        for row in measure(case, device, ceiling, settings):
            rows.append(row)
            append(arguments.out, [{**row, **about}])
    print(report(rows))
    return int(bool(red) or any(row["status"] == "failed" and row["implementation"] in OURS for row in rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
