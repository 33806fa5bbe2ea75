"""Seconds of every op at the shapes of a training step, beside its opponents: python -m benchmarks.ops --op push

For forward, backward and both: the eager equation, torch.compile of it, our Triton kernel (on a GPU; never its
interpreter) and for attention what torch offers. The op's tests run first, and every opponent must agree with the
float64 equation on the inputs it is timed on. An opponent that cannot serve is a row with its reason. Rows are JSON
lines with the counted least bytes and operations and the share of the measured ceiling that bounds them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from benchmarks.cases import BATCH_SIZE, DATASETS, PRECISIONS, Inputs, OpCase, cases_of, wrt_of
from benchmarks.counts import MODES, PRODUCTS, Work, count
from benchmarks.opponents import Opponent, opponents_of
from benchmarks.step import commit
from benchmarks.timing import Ceilings, ceilings, matmul_precision, side_stream, timed
from pps_fast.backend import Op
from pps_fast.cli import Device, choose_device, set_threads
from pps_fast.info import cpu_name
from pps_fast.ops import ALL_OPS, OPS
from tests.ops.check import equation_of, values_and_gradients, values_of

# subprocesses run as from a checkout's root
ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
OpName = Literal[tuple(op.name for op in ALL_OPS)]  # type: ignore[valid-type]
DatasetName = Literal[tuple(DATASETS)]  # type: ignore[valid-type]
DType = Literal[tuple(PRECISIONS)]  # type: ignore[valid-type]

# input sets that are timed in turn
NUM_SETS = 3
# largest relative norm of a difference from the float64 equation, of any value or gradient
AGREEMENT = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
# opponents that this project answers for
OURS = ("equation", "triton")
# of a CPU run, which has to end one day
CPU_BATCH_SIZE = 4


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        seconds: to spend on each row, about.
        opponents: names of those that run; None for all.
        use_compile: torch.compile on a CPU too.
    """

    seconds: float = 0.3
    opponents: tuple[str, ...] | None = None
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


def about_machine(device: torch.device) -> Row:
    """What every row says about where it was measured."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "not installed"
    return {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {cpu_name()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": triton,
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def exact_of(case: OpCase, inputs: Inputs) -> dict[str, Tensor]:
    """Values and gradients of the equation in float64, on the inputs as rounded."""
    wide = {name: x.detach().double() if name in wrt_of(inputs) else x for name, x in inputs.items()}
    wide = {name: x.requires_grad_() if name in wrt_of(inputs) else x for name, x in wide.items()}
    return values_and_gradients(equation_of(_op(case.op)), wide, wrt_of(inputs))


def _op(name: str) -> Op:
    return next(op for op in ALL_OPS if op.name == name)


def error_of(opponent: Opponent, inputs: Inputs, exact: dict[str, Tensor]) -> float:
    """Returns the largest relative norm of what differs from `exact`, over values and gradients; infinite for a NaN."""
    prepared = opponent.prepare(inputs)
    got = values_and_gradients(opponent.function, prepared, wrt_of(inputs))
    return max(_relative_norm(got[name], oracle) for name, oracle in exact.items())


def _relative_norm(got: Tensor, oracle: Tensor) -> float:
    if got.numel() != oracle.numel():
        # the gradient of a mask [G, 1, Q, T] made of a bias [G, T] or [B, N, T]
        got = got.flatten(1, -2).double().sum(1)
    difference = torch.linalg.vector_norm(got.double().reshape(oracle.shape) - oracle)
    scale = torch.linalg.vector_norm(oracle)
    error = (difference / scale if scale > 0 else difference).item()
    return error if error == error else float("inf")


def call_of(opponent: Opponent, given: Inputs, mode: str) -> Callable[[], Any]:
    """Returns a function without arguments that does what is timed; all that it needs is made here."""
    inputs, names = opponent.prepare(given), wrt_of(given)
    leaves = [inputs[name] for name in names]
    results = values_of(opponent.function(**inputs))
    grads = [torch.randn_like(result) for result in results]

    def forward() -> Any:
        return opponent.function(**inputs)

    def backward() -> Any:
        return torch.autograd.grad(results, leaves, grads, retain_graph=True)

    def both() -> Any:
        return torch.autograd.grad(values_of(opponent.function(**inputs)), leaves, grads)

    return {"forward": forward, "backward": backward, "both": both}[mode]


def _checked(opponent: Opponent, case: OpCase, inputs: Inputs, exact: dict[str, Tensor]) -> Row:
    """Columns of agreement, and the seconds of the first calls where they compile; with a status if it is refused."""
    begin = time.perf_counter()
    error, limit = error_of(opponent, inputs, exact), AGREEMENT[case.dtype]
    if error > limit:
        why = f"differs from the float64 equation by {error:.2e} (relative norm), at most {limit:.0e} is timed"
        return {"status": "failed", "why": why}
    compiling = {"compile_seconds": round(time.perf_counter() - begin, 2)} if opponent.is_compiled else {}
    return {"error": float(f"{error:.3g}"), **compiling}


def _rates(work: Work, row: Row, ceiling: Ceilings, dtype: str) -> Row:
    seconds = row["seconds_median"]
    share, bound = ceiling.share(work, seconds, dtype)
    return {
        "gb_per_s": float(f"{work.bytes / seconds / 1e9:.4g}"),
        "tflop_per_s": float(f"{work.flops / seconds / 1e12:.4g}"),
        "share": float(f"{share:.3g}"),
        "bound": bound,
    }


def measure(case: OpCase, device: torch.device, ceiling: Ceilings, settings: Settings) -> Iterator[Row]:
    """Yields the rows of every opponent and mode of a case as they are known; status is ok, failed or refused."""
    with matmul_precision(PRECISIONS[case.dtype][1]), side_stream(device):
        sets = [case.inputs(device, draw, requires_grad=True) for draw in range(NUM_SETS)]
        work = count(case.op, sets[0])
        about = {"op": case.op, "case": case.place, "dataset": case.dataset, "dtype": case.dtype}
        about["batch_size"] = case.batch_size
        exact: dict[str, Tensor] = {}
        for opponent in opponents_of(_op(case.op), sets[0], settings.use_compile):
            if settings.opponents is not None and opponent.name not in settings.opponents:
                continue
            named = {**about, "opponent": opponent.name}
            if opponent.why_not is not None:
                yield {**named, "mode": "all", "status": "refused", "why": opponent.why_not}
                continue
            exact = exact or exact_of(case, sets[0])
            yield from _measure_opponent(opponent, case, sets, exact, named, (work, ceiling, settings))


def _measure_opponent(
    opponent: Opponent,
    case: OpCase,
    sets: Sequence[Inputs],
    exact: dict[str, Tensor],
    about: Row,
    how: tuple[dict[str, Work], Ceilings, Settings],
) -> Iterator[Row]:
    work, ceiling, settings = how
    device = next(iter(exact.values())).device
    # a compiled backward pass gives its saved tensors away, and is timed more than once
    with torch._functorch.config.patch(donated_buffer=False):
        if opponent.is_compiled:
            torch._dynamo.reset()
        try:
            checked = _checked(opponent, case, sets[0], exact)
            if "status" in checked:
                yield {**about, "mode": "all", **checked}
                return
            for mode in MODES:
                times = timed([call_of(opponent, inputs, mode) for inputs in sets], device, settings.seconds).values()
                counted = {"bytes": work[mode].bytes, "flops": work[mode].flops}
                dtype = case.dtype if case.op in PRODUCTS else "fp32"
                rates = _rates(work[mode], times, ceiling, dtype)
                yield {**about, "mode": mode, "status": "ok", **times, **counted, **rates, **checked}
        # whatever an opponent breaks on, the others are measured
        except Exception as error:
            yield {**about, "mode": "all", "status": "failed", "why": f"{type(error).__name__}: {error}"}


def without_times(row: Row) -> Row:
    """A row of a trial: what was counted and checked, and nothing that was measured."""
    measured = ("seconds", "compile_seconds", "gb_per_s", "tflop_per_s", "share", "bound", "repetitions", "ceilings")
    return {name: value for name, value in row.items() if not name.startswith(measured)}


def markdown(rows: Sequence[Row]) -> str:
    """Returns the rows as a table, times in microseconds, and below it who was not timed and why."""
    lines = ["| op | case | dtype | mode | opponent | median (20 %, 80 %) us | GB/s | TFLOP/s | share | error |"]
    lines.append("|" + " --- |" * 5 + " ---: |" * 5)
    absent: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            absent.setdefault((row["opponent"], row["status"], row["why"].splitlines()[0]), []).append(row["op"])
            continue
        case = f"{row['dataset']} {row['case']}, B = {row['batch_size']}"
        start = f"| {row['op']} | {case} | {row['dtype']} | {row['mode']} | {row['opponent']} |"
        if "seconds_median" not in row:
            lines.append(f"{start} not measured |  |  |  | {row['error']:.1e} |")
            continue
        times = [f"{1e6 * row[f'seconds_{name}']:.4g}" for name in ("median", "q20", "q80")]
        rates = f"{row['gb_per_s']:g} | {row['tflop_per_s']:g} | {100 * row['share']:.3g} % of {row['bound']}"
        lines.append(f"{start} {times[0]} ({times[1]}, {times[2]}) | {rates} | {row['error']:.1e} |")
    for (opponent, status, why), ops in absent.items():
        lines += ["", f"* {opponent}, {len(ops)} cases ({', '.join(dict.fromkeys(ops))}): **{status}**, {why}"]
    return "\n".join(lines)


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
    red = red_ops(arguments.op) if arguments.tests else {}
    cases = [case for case in chosen_cases(arguments, device) if case.op not in red]
    rows = [{"op": op, "opponent": "all", "mode": "all", "status": "refused", "why": why} for op, why in red.items()]
    lines = _lines(arguments, device, cases, rows)
    for line in lines:
        print(line, flush=True)
        if arguments.out is not None:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    print(f"\n{markdown(rows)}")
    return int(bool(red) or any(row["status"] == "failed" and row["opponent"] in OURS for row in rows))


def _lines(arguments: Arguments, device: torch.device, cases: list[OpCase], rows: list[Row]) -> Iterator[str]:
    """Yields the rows as JSON, those already there first, and appends to them."""
    machine: Row = {**about_machine(device), "has_run_tests": arguments.tests}
    yield from [json.dumps({**row, **machine}) for row in rows]
    if not cases:
        return
    ceiling = ceilings(device, [case.dtype for case in cases])
    machine["ceilings"] = ceiling.values()
    settings = Settings(arguments.seconds, use_compile=arguments.compile)
    for case in cases:
        for row in measure(case, device, ceiling, settings):
            rows.append(row)
            yield json.dumps({**row, **machine})


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
