"""Everything that needs a GPU, in one command: python benchmarks/gpu_report.py --check

Environment; with --check every case of tests/cases.py through every kernel, compiled for the GPU, in fp32, bf16 and
fp16, value and gradients against the float64 equation, and the tests marked `gpu`; then training steps with the kernels
and without. Every row is written as a JSON line when it is known, tables in Markdown at the end. What the budget leaves
no time for is said. --dry-run goes through the stages on a CPU, in Triton's interpreter, and measures nothing.

Exit status: 0; 1 if a check failed or did not finish; 2 without a CUDA device.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

# run as a script, the benchmarks' folder is on the path and the checkout is not
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if __name__ == "__main__":
    # read by triton when it is imported
    os.environ["TRITON_INTERPRET"] = "1" if "--dry-run" in sys.argv else "0"

import torch  # noqa: E402
import tyro  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks import step  # noqa: E402
from pps_fast.backend import Op, use_backend  # noqa: E402
from pps_fast.choices import choices_of  # noqa: E402
from pps_fast.info import data_sizes, devices, versions  # noqa: E402
from pps_fast.ops import OPS  # noqa: E402
from pps_fast.presets import PRESETS  # noqa: E402
from tests.cases import CASES, Case, to_arrays, to_tensors  # noqa: E402
from tests.compare import assert_close  # noqa: E402
from tests.ops.check import as_one, equation_of  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# share of the budget that parity leaves to what comes after it: compiling for every case takes most of the time
RESERVED = 0.4
NOTHING_MEASURED = "DRY RUN on a CPU, kernels interpreted: nothing was measured, no GPU was used."
Row = dict[str, Any]


@dataclass(frozen=True)
class Arguments:
    """What to run."""

    check: bool = False
    """also check every kernel, and run the tests marked gpu"""
    dry_run: bool = False
    """tiny sizes on a CPU, to see that every stage runs"""
    out: Path = Path("runs/gpu_report")
    """directory of the result files, which are never overwritten"""
    budget: float = 460.0
    """seconds, after which no further part begins"""


class Report:
    """Rows as they come, in a file of JSON lines; tables at the end."""

    def __init__(self, arguments: Arguments, device: torch.device) -> None:
        self.device, self.is_dry = device, arguments.dry_run
        self.budget = arguments.budget
        self.deadline = time.monotonic() + arguments.budget
        self.rows: list[Row] = []
        hardware = "dry_run" if self.is_dry else re.sub(r"\W+", "_", torch.cuda.get_device_name(device)).lower()
        moment = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.path = arguments.out / f"gpu_report_{hardware}_{moment}.jsonl"

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.deadline - time.monotonic()

    def add(self, stage: str, status: str, **values: Any) -> None:
        """Writes a row; status is ok, failed, refused, absent (no kernel) or not run."""
        row = {"stage": stage, "status": status, **({"dry_run": True} if self.is_dry else {}), **values}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = " ".join(str(values[name]) for name in ("op", "case", "dtype", "preset", "backend") if name in values)
        if status != "ok" or stage != "parity":
            print(f"{stage}: {status} {shown} {values.get('why', '')}".rstrip(), flush=True)

    def of(self, stage: str) -> list[Row]:
        """The rows of a stage."""
        return [row for row in self.rows if row["stage"] == stage]


def environment(report: Report) -> None:
    """Versions, devices, commit, clocks, and what 'auto' means for every op of both data sets."""
    chosen = {}
    for preset in ("charades", "activitynet"):
        sizes, num_columns = data_sizes(preset, PRESETS[preset])
        chosen[preset] = [asdict(item) for item in choices_of(PRESETS[preset], sizes, num_columns, report.device)]
    clocks = "unknown"
    if shutil.which("nvidia-smi") and not report.is_dry:
        query = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
        done = subprocess.run(["nvidia-smi", query, "--format=csv"], capture_output=True, text=True)
        clocks = done.stdout.strip()
    found = {"versions": versions(), "devices": devices(), "commit": step._commit(), "clocks": clocks, "ops": chosen}
    report.add("environment", "ok", **found, date=datetime.now(timezone.utc).isoformat(timespec="seconds"))


@contextmanager
def poisoned_empty() -> Iterator[None]:
    """Fills uninitialised floating memory with NaN, so that a result that was not written is seen."""
    allocate = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        value = allocate(*args, **kwargs)
        return value.fill_(float("nan")) if value.is_floating_point() else value

    torch.empty = poisoned
    try:
        yield
    finally:
        torch.empty = allocate


def _on(device: torch.device, inputs: dict[str, Any], wrt: tuple[str, ...]) -> dict[str, Any]:
    """Returns inputs on a device, those in `wrt` as leaves."""
    moved = {name: v.detach().to(device) if isinstance(v, Tensor) else v for name, v in inputs.items()}
    return {name: value.requires_grad_() if name in wrt else value for name, value in moved.items()}


def value_and_gradients(function: Callable[..., Any], inputs: dict[str, Any], wrt: tuple[str, ...]) -> list[Tensor]:
    """Returns the result and its gradients on the CPU, for an incoming gradient of many values."""
    value = as_one(function(**inputs))
    weight = torch.linspace(-1.3, 1.7, value.numel(), dtype=torch.float64, device=value.device).reshape(value.shape)
    grads = torch.autograd.grad((value.double() * weight).sum(), [inputs[name] for name in wrt])
    return [result.detach().cpu() for result in (value, *grads)]


def _error(got: Tensor, oracle: Tensor) -> float:
    scale = torch.linalg.vector_norm(oracle)
    error = torch.linalg.vector_norm(got.double() - oracle)
    return (error / scale if scale > 0 else error).item()


def check_parity(op: Op, caps: str, case: Case, dtype: torch.dtype, device: torch.device) -> tuple[str, Row]:
    """Compares a kernel with the float64 equation; returns a status and what was found.

    Args:
        caps: row of `tests.tolerances.CAP`.
    """
    inputs = case.inputs(dtype)
    given = _on(device, inputs, case.wrt)
    reasons = op.reasons(**given)
    if reasons:
        return "refused", {"why": "; ".join(reasons)}
    # the gradient of a mask near 0 means nothing below float64
    names = ("value",) if case.is_stiff else ("value", *case.wrt)
    exact = to_tensors(to_arrays(inputs), torch.float64, case.wrt)
    oracle = value_and_gradients(equation_of(op), exact, case.wrt)
    reference = value_and_gradients(equation_of(op), given, case.wrt)
    with poisoned_empty():
        got = value_and_gradients(partial(op, backend="triton"), given, case.wrt)
        again = value_and_gradients(partial(op, backend="triton"), given, case.wrt)
    errors, faults = {}, []
    for name, *three in zip(names, got, reference, oracle):  # noqa: B905 - stiff cases end early
        errors[name] = _error(three[0], three[2])
        try:
            assert_close(caps, *three)
        except AssertionError as error:
            faults.append(f"{name}: {error}")
    if not all(torch.equal(first, second) for first, second in zip(got, again, strict=True)):
        faults.append("two runs differ")
    return ("failed" if faults else "ok"), {"errors": errors, **({"why": "; ".join(faults)} if faults else {})}


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
            for name in DTYPES if index < len(cases) else ():
                if not _parity_case(report, op, file, cases[index], name):
                    return


def _parity_case(report: Report, op: Op, file: str, case: Case, dtype: str) -> bool:
    """Adds a row; False if no other case can follow."""
    about = {"op": op.name, "case": case.name, "dtype": dtype}
    if report.left() <= RESERVED * report.budget:
        report.add("parity", "not run", **about, why="its share of the budget is spent; the cases after it neither")
        return False
    try:
        status, found = check_parity(op, file, case, DTYPES[dtype], report.device)
    # whatever a kernel breaks on, the other kernels are checked too
    except Exception as error:
        found, status = {"why": f"{type(error).__name__}: {error}"}, "failed"
    report.add("parity", status, **about, **found)
    if status == "failed" and not _is_alive(report.device):
        report.add("parity", "not run", why="the CUDA context is broken; the cases after this one were not run")
        return False
    return True


def _is_alive(device: torch.device) -> bool:
    """Whether the device still computes: after an illegal access every call raises."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def pytest_gpu(report: Report) -> None:
    """The tests marked gpu, in a process of their own; a dry run has one file of them skipped."""
    if report.left() <= 0:
        report.add("pytest", "not run", why="the budget is spent")
        return
    what = "tests/ops/test_gaussian_mask.py" if report.is_dry else "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", what]
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET" or report.is_dry}
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=report.left(), env=kept)
    except subprocess.TimeoutExpired:
        report.add("pytest", "not run", why="not finished within the budget")
        return
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    failed = {"why": "\n".join(lines[-40:])} if done.returncode != 0 else {}
    report.add("pytest", "failed" if failed else "ok", summary=lines[-1], **failed)


def steps(report: Report) -> None:
    """Training steps of both data sets with the equations alone and with the kernels, in fp32 and bf16."""
    presets = ("charades_clip_small",) if report.is_dry else ("charades", "activitynet")
    for preset in presets:
        for is_bf16 in (False,) if report.is_dry else (False, True):
            for backend in ("torch", "auto"):
                about = {"preset": preset, "precision": "bf16" if is_bf16 else "fp32", "backend": backend}
                if report.left() <= 0:
                    report.add("step", "not run", **about, why="the budget is spent")
                    continue
                _step(report, about, is_bf16)


def _step(report: Report, about: Row, is_bf16: bool) -> None:
    sizes = {"batch_size": 1, "steps": 1, "device": "cpu"} if report.is_dry else {"steps": 20, "device": "cuda"}
    if not report.is_dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        with use_backend(about["backend"]):
            row = step.measure(step.Arguments(preset=about["preset"], bf16=is_bf16, **sizes))
    # what does not run or does not fit is a result too
    except Exception as error:
        report.add("step", "failed", **about, why=f"{type(error).__name__}: {error}")
        return
    # times of a dry run are times of nothing
    kept = {"what": row["what"]} if report.is_dry else row
    report.add("step", "ok", **{**kept, **about})


def markdown(report: Report) -> str:
    """Returns all tables."""
    lines = ["# GPU report", ""]
    lines += [f"**{NOTHING_MEASURED}**", ""] if report.is_dry else []
    for row in report.of("environment"):
        lines += [f"{row['date']}, commit {row['commit']}", ""]
        lines += [f"* {name}: {known}" for name, known in {**row["versions"], **row["devices"]}.items()]
    lines += ["", *_parity_table(report.of("parity")), ""]
    for row in report.of("pytest"):
        lines += [f"Tests marked gpu: {row['status']}; {row.get('summary', row.get('why'))}", ""]
    lines += [*_step_table(report.of("step"), report.is_dry), ""]
    wrong = [row for row in report.rows if row["status"] in ("failed", "not run")]
    for row in wrong:
        about = " ".join(str(row[name]) for name in ("op", "case", "dtype", "preset", "backend") if name in row)
        lines.append(f"* {row['stage']} {about}: **{row['status']}**, {row['why']}")
    return "\n".join(lines).rstrip() + "\n"


def _parity_table(rows: list[Row]) -> list[str]:
    if not rows:
        return ["Kernels were not checked (no --check)."]
    lines = ["| op | dtype | ok | failed | refused | largest error of the value | of a gradient |", "|" + " --- |" * 7]
    groups = dict.fromkeys((row["op"], row.get("dtype", "-")) for row in rows if "op" in row)
    for op, dtype in groups:
        own = [row for row in rows if (row.get("op"), row.get("dtype", "-")) == (op, dtype)]
        if own[0]["status"] == "absent":
            lines.append(f"| {op} | - | no kernel |  |  |  |  |")
            continue
        counts = [sum(row["status"] == status for row in own) for status in ("ok", "failed", "refused")]
        errors = [row["errors"] for row in own if "errors" in row]
        value = max((found["value"] for found in errors), default=float("nan"))
        gradient = max((e for found in errors for n, e in found.items() if n != "value"), default=float("nan"))
        lines.append(f"| {op} | {dtype} | {' | '.join(map(str, counts))} | {value:.1e} | {gradient:.1e} |")
    return lines


def _step_table(rows: list[Row], is_dry: bool) -> list[str]:
    lines = ["| preset | precision | backend | seconds per step: median (20 %, 80 %) | peak GiB | times torch |"]
    lines.append("|" + " --- |" * 6)
    base = {(r["preset"], r["precision"]): r.get("seconds_median") for r in rows if r["backend"] == "torch"}
    for row in rows:
        start = f"| {row['preset']} | {row['precision']} | {row['backend']} |"
        if row["status"] != "ok" or is_dry:
            lines.append(f"{start} {'not measured' if row['status'] == 'ok' else row['status']} |  |  |")
            continue
        before = base.get((row["preset"], row["precision"]))
        ratio = f"{before / row['seconds_median']:.2f}" if before else "-"
        spread = f"{row['seconds_median']} ({row['seconds_q20']}, {row['seconds_q80']})"
        lines.append(f"{start} {spread} | {row['peak_memory_gib']} | {ratio} |")
    return lines


def main(arguments: Arguments) -> int:
    """Runs the stages; returns the exit status."""
    if not torch.cuda.is_available() and not arguments.dry_run:
        print("error: torch finds no CUDA device here; --dry-run goes through the stages without one", file=sys.stderr)
        return 2
    report = Report(arguments, torch.device("cpu" if arguments.dry_run else "cuda"))
    if report.is_dry:
        print(NOTHING_MEASURED, flush=True)
    stages = [environment, parity, pytest_gpu, steps] if arguments.check else [environment, steps]
    try:
        for stage in stages:
            stage(report)
    finally:
        text = markdown(report)
        report.path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"\n{text}\nwritten: {report.path}, {report.path.with_suffix('.md')}")
    return int(any(row["status"] in ("failed", "not run") for row in report.rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
