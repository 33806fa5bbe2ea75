"""Everything that needs a GPU, in one command: python benchmarks/gpu_report.py --check

Environment; with --check every case of tests/cases.py through every kernel, compiled for the GPU, in fp32, bf16, fp16
and where there are products tf32, value and gradients against the float64 equation; then every op beside its opponents
(see ops.py), and the tests marked `gpu`. At the end training steps with the kernels and without. Every row is written
as a JSON line when it is known, tables in Markdown at the end. What the budget leaves no time for is said. --dry-run
goes through the stages on a CPU, with kernels in Triton's interpreter, and measures nothing.

Exit status: 0; 1 if a check failed or did not finish; 2 without a CUDA device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

# run as a script, the benchmarks' folder is on the path and the checkout is not
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if __name__ == "__main__":
    # read by triton when it is imported
    os.environ["TRITON_INTERPRET"] = "1" if "--dry-run" in sys.argv else "0"

import torch  # noqa: E402
import tyro  # noqa: E402

from benchmarks import ops, step  # noqa: E402
from benchmarks.cases import OpCase, cases_of  # noqa: E402
from benchmarks.parity import is_alive, parity  # noqa: E402
from benchmarks.report import NOTHING_MEASURED, Arguments, Report, Row, markdown  # noqa: E402
from benchmarks.timing import ceilings  # noqa: E402
from pps_fast.backend import use_backend  # noqa: E402
from pps_fast.choices import choices_of  # noqa: E402
from pps_fast.info import data_sizes, devices, versions  # noqa: E402
from pps_fast.ops import ALL_OPS  # noqa: E402
from pps_fast.presets import PRESETS  # noqa: E402

# share of the budget that the ops' times leave to the tests and the training steps
RESERVED = 0.3
# who is timed first: a spent budget should leave the other opponents out, and those that compile above all
ROUNDS = (ops.OURS, ("sdpa", "sdpa_mem_efficient"), ("compile", "flex_attention"))

# backend, plan, captured: one more saving at a time
LADDER = (
    ("torch", "plain", False),
    ("auto", "plain", False),
    ("torch", "shared", False),
    ("auto", "shared", False),
    ("auto", "shared", True),
)


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


def _in_order(cases: dict[str, list[OpCase]]) -> list[OpCase]:
    """All cases, the first of every op before the second of any; those in bf16 first, where an op has any."""
    ranked: list[tuple[tuple[bool, int], OpCase]] = []
    for own in cases.values():
        has_bf16 = any(case.dtype == "bf16" for case in own)
        ranked += [((has_bf16 and case.dtype != "bf16", index), case) for index, case in enumerate(own)]
    return [case for _, case in sorted(ranked, key=lambda item: item[0])]


def kernels(report: Report) -> None:
    """Times of every op beside its opponents; kernels that failed their parity are not timed."""
    names = [op.name for op in ALL_OPS]
    found = cases_of(("tiny",), batch_size=1) if report.is_dry else cases_of()
    cases = _in_order({name: found[name][:1] if report.is_dry else found[name] for name in names})
    failed = {row["op"] for row in report.of("parity") if row["status"] == "failed" and "op" in row}
    for name in failed:
        report.add("kernels", "refused", op=name, opponent="triton", why="it failed its parity")
    if report.left() <= RESERVED * report.budget:
        report.add("kernels", "not run", why="its share of the budget is spent")
        return
    ceiling = ceilings(report.device, [case.dtype for case in cases], is_small=report.is_dry)
    about = {**ops.about_machine(report.device), "ceilings": ceiling.values()}
    for opponents in ROUNDS:
        for index, case in enumerate(cases):
            if report.left() <= RESERVED * report.budget:
                left = f"{len(cases) - index} of {len(cases)} cases of {' and '.join(opponents)}"
                status = "not run" if opponents == ops.OURS else "left out"
                report.add("kernels", status, why=f"its share of the budget is spent: without {left} and the rest")
                return
            served = tuple(name for name in opponents if name != "triton" or case.op not in failed)
            settings = ops.Settings(0.0 if report.is_dry else 0.05, served)
            for row in ops.measure(case, report.device, ceiling, settings):
                row = {**row, **about}
                report.add("kernels", **(ops.without_times(row) if report.is_dry else row))
            if not is_alive(report.device):
                report.add("kernels", "not run", why="the CUDA context is broken; the ops after this one are not timed")
                return


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
    """Training steps of both data sets, from the plain equations to the captured shared plan, in fp32 and bf16."""
    presets = ("charades_clip_small",) if report.is_dry else ("charades", "activitynet")
    for preset in presets:
        for is_bf16 in (False,) if report.is_dry else (False, True):
            for backend, plan, is_captured in LADDER:
                ours = {"backend": backend, "plan": plan, "captured": is_captured}
                about = {"preset": preset, "precision": "bf16" if is_bf16 else "fp32", **ours}
                if report.left() <= 0:
                    report.add("step", "not run", **about, why="the budget is spent")
                    continue
                _step(report, about, is_bf16)


def _step(report: Report, about: Row, is_bf16: bool) -> None:
    how = {"plan": about["plan"], "capture": about["captured"]}
    sizes = {"batch_size": 1, "steps": 1, "device": "cpu"} if report.is_dry else {"steps": 20, "device": "cuda"}
    if not report.is_dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        with use_backend(about["backend"]):
            row = step.measure(step.Arguments(preset=about["preset"], bf16=is_bf16, **how, **sizes))
    # what does not run or does not fit is a result too
    except Exception as error:
        report.add("step", "failed", **about, why=f"{type(error).__name__}: {error}")
        return
    # times of a dry run are times of nothing
    kept = {"what": row["what"]} if report.is_dry else row
    report.add("step", "ok", **{**kept, **about})


def main(arguments: Arguments) -> int:
    """Runs the stages; returns the exit status."""
    if not torch.cuda.is_available() and not arguments.dry_run:
        print("error: torch finds no CUDA device here; --dry-run goes through the stages without one", file=sys.stderr)
        return 2
    report = Report(arguments, torch.device("cpu" if arguments.dry_run else "cuda"))
    if report.is_dry:
        print(NOTHING_MEASURED, flush=True)
    stages = [environment, parity, kernels, pytest_gpu, steps] if arguments.check else [environment, steps]
    try:
        for stage in stages:
            stage(report)
    finally:
        text = markdown(report)
        report.path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"\n{text}\nwritten: {report.path}, {report.path.with_suffix('.md')}")
    return int(not report.is_complete())


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
