"""Everything that needs a GPU, in one command: python -m benchmarks.gpu_report

Stages, each with a share of the budget, what it leaves going to those after it: environment (always: versions, clocks,
measured ceilings); compile (the kernels of the steps that follow, in parallel); steps (whole training steps beside the
published formulation and torch's attention, eager and captured); training (30 epochs of Charades' size with their
evaluations); evaluation (3,158 pairs, captured beside eager); parity (every test case through every kernel, value and
gradients against the float64 equation); pytest (the tests marked `gpu`, whole steps among them); curves (200 steps
beside the published formulation); kernels (every op beside its baselines); compiled (whole steps by torch.compile and
FlexAttention, which take minutes to compile: give them a command of their own). Columns are documented in
whole_steps.py, full_training.py, evaluation.py, ops.py and parity.py.

Every row is written as a JSON line when it is known, tables in Markdown at the end. What fails, and what the budget
leaves no time for, is a row with its reason. --stages runs some of them. --dry-run goes through them with tiny sizes on
a CPU, kernels in Triton's interpreter, and measures nothing.

Exit status: 0; 1 if a check failed or something that has to run did not; 2 without a CUDA device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec

if __name__ == "__main__":
    # read by triton when it is imported
    os.environ["TRITON_INTERPRET"] = "1" if "--dry-run" in sys.argv else "0"

import torch  # noqa: E402
import tyro  # noqa: E402

from benchmarks import ops  # noqa: E402
from benchmarks.cases import OpCase, cases_of  # noqa: E402
from benchmarks.evaluation import evaluation_table, evaluations  # noqa: E402
from benchmarks.full_training import curve_table, curves, training, training_table  # noqa: E402
from benchmarks.parity import is_alive, parity  # noqa: E402
from benchmarks.report import NOTHING_MEASURED, Arguments, Report, kernel_table, markdown, parity_table  # noqa: E402
from benchmarks.rows import ROOT, Row, about_machine, commit  # noqa: E402
from benchmarks.timing import (  # noqa: E402
    PRECISIONS,  # noqa: E402
    OutOfTime,
    ceilings,
    time_limit,
)
from benchmarks.whole_steps import compiled, step_table, steps  # noqa: E402
from benchmarks.workers import num_processors, run_tasks  # noqa: E402
from pps_fast.config_tree import override  # noqa: E402
from pps_fast.info import data_sizes, devices, versions  # noqa: E402
from pps_fast.ops import ALL_OPS  # noqa: E402
from pps_fast.ops.choices import choices_of  # noqa: E402
from pps_fast.ops.launches import compile_launches  # noqa: E402
from pps_fast.presets import PRESETS  # noqa: E402
from pps_fast.train.compile import step_launches  # noqa: E402
from pps_fast.train.fake_step import record_step  # noqa: E402

# what is timed first: a spent budget should leave out baselines, and those that compile above all
ROUNDS: tuple[tuple[str, ...], ...] = (ops.OURS, ("sdpa", "sdpa_mem_efficient"), ("compile", "flex_attention"))


def environment(report: Report) -> None:
    """Versions, devices, commit, clocks, ceilings, and what 'auto' means for every op of both data sets."""
    chosen = {}
    for preset in ("tiny",) if report.is_dry else ("charades", "activitynet"):
        sizes, num_columns = data_sizes(preset, PRESETS[preset])
        records = record_step(PRESETS[preset], sizes, num_columns, report.device)
        chosen[preset] = [asdict(item) for item in choices_of(records)]
    clocks = "unknown"
    if shutil.which("nvidia-smi") and not report.is_dry:
        query = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
        done = subprocess.run(["nvidia-smi", query, "--format=csv"], capture_output=True, text=True)
        clocks = done.stdout.strip()
    report.ceilings = ceilings(report.device, tuple(PRECISIONS), is_small=report.is_dry)
    facts = {"versions": versions(), "devices": devices(), "commit": commit(), "clocks": clocks, "ops": chosen}
    facts |= report.measured(ceilings=report.ceilings.values())
    report.add("environment", "ok", **facts, date=datetime.now(timezone.utc).isoformat(timespec="seconds"))


def _in_order(cases: dict[str, list[OpCase]]) -> list[OpCase]:
    """All cases, the first of every op before the second of any; those in bf16 first, where an op has any."""
    ranked: list[tuple[tuple[bool, int], OpCase]] = []
    for cases_of_op in cases.values():
        has_bf16 = any(case.dtype == "bf16" for case in cases_of_op)
        ranked += [((has_bf16 and case.dtype != "bf16", index), case) for index, case in enumerate(cases_of_op)]
    return [case for _, case in sorted(ranked, key=lambda item: item[0])]


def kernels(report: Report) -> None:
    """Times of every op beside its baselines; kernels that failed their parity are not timed."""
    names = [op.name for op in ALL_OPS]
    cases = cases_of(("tiny",), batch_size=1) if report.is_dry else cases_of()
    cases = _in_order({name: cases[name][:1] if report.is_dry else cases[name] for name in names})
    failed = {row["op"] for row in report.of("parity") if row["status"] == "failed" and "op" in row}
    for name in failed:
        report.add("kernels", "refused", op=name, implementation="triton", why="it failed its parity")
    if report.left() <= 0:
        report.add("kernels", "not run", why="its share of the budget is spent")
        return
    about = {**about_machine(report.device), "ceilings": report.ceilings.values()}
    for names_of_round in ROUNDS:
        for index, case in enumerate(cases):
            if report.left() <= 0:
                left = f"{len(cases) - index} of {len(cases)} cases of {' and '.join(names_of_round)}"
                status = "not run" if names_of_round == ops.OURS else "left out"
                report.add("kernels", status, why=f"its share of the budget is spent: without {left} and the rest")
                return
            served = tuple(name for name in names_of_round if name != "triton" or case.op not in failed)
            settings = ops.Settings(0.0 if report.is_dry else 0.05, served)
            for row in ops.measure(case, report.device, report.ceilings, settings):
                row = {**row, **about}
                report.add("kernels", **(ops.without_times(row) if report.is_dry else row))
            if not is_alive(report.device):
                report.add("kernels", "not run", why="the CUDA context is broken; the ops after this one are not timed")
                return


def compile_kernels(report: Report) -> None:
    """Compiles the kernels of the steps and trainings that are timed, one process for each preset and precision."""
    if report.left() <= 0:
        report.add("compile", "not run", why="its share of the budget is spent")
        return
    if report.is_dry:
        report.add("compile", "refused", why="a dry run interprets the kernels")
        return
    presets = ("charades_released", "activitynet_released", "charades")
    tasks = [(preset, precision) for precision in ("bf16", "fp32", "tf32") for preset in presets]
    for (preset, precision), row in run_tasks(compiled_kernels, tasks, time.monotonic() + report.left()):
        report.add("compile", **{"preset": preset, "precision": precision, **row})


def compiled_kernels(preset: str, precision: str) -> Iterator[Row]:
    """Yields one row: how many kernels a preset's steps have on this GPU, and how long compiling them took."""
    begin = time.monotonic()
    sizes, num_columns = data_sizes(preset, PRESETS[preset])
    config = override(PRESETS[preset], {"train.precision": precision})
    launches = step_launches(config, sizes, (num_columns,), "cuda", config.train.batch_size)
    compile_launches(launches, lambda number: None, num_threads=2)
    yield {"status": "ok", "kernels": len(launches), "seconds": round(time.monotonic() - begin, 1)}


def gpu_test_files() -> list[str]:
    """Returns the files of the tests that are marked gpu; to collect all others takes longer than to run these."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]


def pytest_gpu(report: Report) -> None:
    """The tests marked gpu, in a process of their own; a dry run has one file of them skipped."""
    if report.left() <= 0:
        report.add("pytest", "not run", why="the budget is spent")
        return
    files = ["tests/ops/test_gaussian_mask.py"] if report.is_dry else gpu_test_files()
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-m", "gpu", "-p", "no:cacheprovider", *files]
    if not report.is_dry and find_spec("xdist") is not None:
        command += ["-n", str(min(num_processors(), 12)), "--dist", "worksteal"]
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET" or report.is_dry}
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=report.left(), env=kept)
    except subprocess.TimeoutExpired as error:
        # what was printed until then
        tail = (error.stdout or b"").decode(errors="replace")[-1500:]
        report.add("pytest", "not run", why=f"not finished within the budget; so far: {tail}")
        return
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    failed = {"why": "\n".join(lines[-40:])} if done.returncode != 0 else {}
    report.add("pytest", "failed" if failed else "ok", summary=lines[-1], **failed)


# stages in the order they run in, with about the seconds each needs of the default budget
STAGES: dict[str, tuple[Callable[[Report], None], float]] = {
    "compile": (compile_kernels, 45.0),
    "steps": (steps, 100.0),
    "training": (training, 75.0),
    "evaluation": (evaluations, 40.0),
    "parity": (parity, 40.0),
    "pytest": (pytest_gpu, 60.0),
    "curves": (curves, 35.0),
    "kernels": (kernels, 50.0),
    "compiled": (compiled, 15.0),
}
TABLES = {
    "parity": parity_table,
    "steps and compiled": step_table,
    "training": training_table,
    "evaluation": evaluation_table,
    "curves": curve_table,
    "kernels": kernel_table,
}


# whose unfinished rest makes a report no less complete: the ops themselves come first there
OPTIONAL = ("kernels", "compiled")
# seconds that a stage may take beyond its share to end what it began, and the whole report beyond its budget
GRACE, LAST_GRACE = 20.0, 5.0


def run_stages(report: Report, names: Sequence[str]) -> None:
    """Runs the environment and the named stages; what a stage breaks on is a row, and the others run."""
    environment(report)
    chosen = [name for name in STAGES if name in names]
    for index, name in enumerate(chosen):
        stage, weight = STAGES[name]
        report.begin(weight / sum(STAGES[other][1] for other in chosen[index:]))
        begin = time.monotonic()
        try:
            with time_limit(min(report.left() + GRACE, max(report.deadline - begin, 0.0) + LAST_GRACE)):
                stage(report)
        except OutOfTime as error:
            report.add(name, "left out" if name in OPTIONAL else "not run", why=f"interrupted: {error}")
        except Exception as error:
            report.add(name, "failed", why=f"{type(error).__name__}: {error}"[:2000])
        report.add("budget", "ok", what=name, **report.measured(seconds=round(time.monotonic() - begin, 1)))


def main(arguments: Arguments) -> int:
    """Runs the stages; returns the exit status."""
    if not torch.cuda.is_available() and not arguments.dry_run:
        print("error: torch finds no CUDA device here; --dry-run goes through the stages without one", file=sys.stderr)
        return 2
    report = Report(arguments, torch.device("cpu" if arguments.dry_run else "cuda"))
    if report.is_dry:
        print(NOTHING_MEASURED, flush=True)
    try:
        run_stages(report, arguments.stages)
    finally:
        text = markdown(report, TABLES)
        report.path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(f"\n{text}\nwritten: {report.path}, {report.path.with_suffix('.md')}")
    return int(not report.is_complete())


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
