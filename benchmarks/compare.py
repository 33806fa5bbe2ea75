"""The published formulation, the plain plan and the shared plan, side by side: python -m benchmarks.compare

Times whole training steps, or with --evaluation whole evaluation steps (forward, ranking, votes), of one batch with the
real data set's sizes. All take turns in one process, so that a machine whose speed drifts slows all of them; a ratio is
the median of the rounds' own ratios. On a CPU with one thread the time is the process's, which other programs disturb
less. The peak memory of each is that of a process of its own. Appends JSON lines to --out.

All compute the same: tests/test_published_baseline.py shows it for the published formulation, tests/reconstructor/
test_plans.py for the plans. Only presets `*_released` compute what the published code computes.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.count_step import matmul_gflop
from benchmarks.memory import process_peak_gib
from benchmarks.published_baseline import build_published_step
from benchmarks.published_step import published_predictions
from benchmarks.rows import ROOT, Row, about_machine, append, table
from benchmarks.step import BATCH_SIZE, build_step, evaluation_of, random_batch, sizes_of
from benchmarks.timing import in_turn
from pps_fast.config import Precision
from pps_fast.config_tree import override
from pps_fast.devices import Device, choose_device, choose_precision, keep_freed_memory, set_threads
from pps_fast.presets import PRESETS

Implementation = Literal["published", "plain", "shared", "shared_bf16"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("published", "plain", "shared")


@dataclass(frozen=True)
class Arguments:
    """What to compare."""

    preset: Literal["charades_released", "activitynet_released"] = "charades_released"
    """config; its sizes are those of the data set the name begins with"""
    batch_size: int = BATCH_SIZE
    """samples per step"""
    rounds: int = 3
    """timed rounds, after one warm-up round; every implementation has a turn in each"""
    evaluation: bool = False
    """evaluation steps instead of training steps"""
    implementations: tuple[Implementation, ...] = IMPLEMENTATIONS
    """what is compared, published first; shared_bf16 is in bf16 beside shared in fp32"""
    bf16: bool = False
    """bf16 with fp32 statistics for ours; the published formulation stays fp32"""
    device: Device = "auto"
    """where"""
    threads: int | None = 1
    """CPU threads"""
    least_ratio: float | None = None
    """exit with status 1 unless the shared plan is this many times as fast as the published formulation"""
    memory: bool = True
    """also run each implementation in a process of its own for its peak memory"""
    only: Implementation | None = None
    """run one step of this implementation alone and print its peak memory in GiB"""
    out: Path | None = None
    """append JSON lines here"""


def _precision_of(arguments: Arguments, implementation: Implementation) -> Precision:
    is_bf16 = implementation != "published" and (arguments.bf16 or implementation == "shared_bf16")
    return "bf16" if is_bf16 else "fp32"


def build(arguments: Arguments, implementation: Implementation) -> Callable[[], Any]:
    """Returns a function that does one step; every implementation has a batch with the same content."""
    device = choose_device(arguments.device)
    sizes, lengths = sizes_of(arguments.preset)
    batch = random_batch(sizes, lengths, arguments.batch_size, device)
    config = PRESETS[arguments.preset]
    if implementation == "published":
        published = build_published_step(config, sizes, device)
        if not arguments.evaluation:
            return lambda: published(batch)
        model = published.model.eval().requires_grad_(False)
        return lambda: published_predictions(model, batch)
    precision = _precision_of(arguments, implementation)
    changes = {"reconstructor.schedule": implementation.removesuffix("_bf16"), "train.precision": precision}
    ours = build_step(override(config, changes), sizes, device)
    return evaluation_of(ours.model, batch, precision == "bf16") if arguments.evaluation else lambda: ours(batch)


def peak_memory(arguments: Arguments, implementation: Implementation) -> float:
    """Returns the peak memory in GiB of a process that does one step."""
    flags = ["--evaluation" if arguments.evaluation else "--no-evaluation", "--bf16" if arguments.bf16 else "--no-bf16"]
    command = [sys.executable, "-m", "benchmarks.compare", "--only", implementation, "--preset", arguments.preset]
    command += ["--batch-size", str(arguments.batch_size), "--device", arguments.device]
    command += ["--threads", str(arguments.threads), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout.split()[-1])


def measure(arguments: Arguments) -> list[Row]:
    """Returns a row for each implementation.

    Raises:
        ValueError: without the published formulation, which the ratios are of.
    """
    if arguments.implementations[:1] != ("published",):
        raise ValueError(f"--implementations {' '.join(arguments.implementations)}: expected published first")
    device = choose_device(arguments.device)
    runs = {name: build(arguments, name) for name in arguments.implementations}
    seconds = in_turn(list(runs), runs.__getitem__, device, arguments.rounds, warm_up_rounds=1)
    counted, faults = {}, {}
    for name, run in runs.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        counted[name] = matmul_gflop(run)
        faults[name] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del runs
    rows = []
    for name in arguments.implementations:
        ratios = [base / value for base, value in zip(seconds["published"], seconds[name], strict=True)]
        row = {
            "what": "evaluation step" if arguments.evaluation else "training step",
            "preset": arguments.preset,
            "batch_size": arguments.batch_size,
            "rounds": arguments.rounds,
            "implementation": name,
            "precision": _precision_of(arguments, name),
            "times_published": round(statistics.median(ratios), 3),
            "least_and_most": [round(min(ratios), 3), round(max(ratios), 3)],
            "matmul_gflop": round(counted[name], 1),
            "page_faults": faults[name],
            "has_amx": device.type == "cpu" and choose_precision(device)[0] == "bf16",
            "seconds": [round(value, 3) for value in seconds[name]],
            "peak_memory_gib": peak_memory(arguments, name) if arguments.memory else None,
        }
        rows.append({**row, **about_machine(device)})
    return rows


def report(rows: list[Row]) -> str:
    """Returns rows as a table."""
    header = ("implementation", "times as fast as published: median (least, most)", "GFLOP of products")
    lines = []
    for row in rows:
        spread = "{:.2f} ({:.2f}, {:.2f})".format(row["times_published"], *row["least_and_most"])
        seconds = f"{statistics.median(row['seconds']):.2f}"
        name = f"{row['implementation'].removesuffix('_bf16')} {row['precision']}"
        others = (row["peak_memory_gib"] or "-", row["page_faults"])
        lines.append((name, spread, f"{row['matmul_gflop']:.0f}", seconds, *others))
    first = f"{rows[0]['what']}, {rows[0]['preset']}, batch {rows[0]['batch_size']}, {rows[0]['hardware']}"
    first += " with AMX" if rows[0]["has_amx"] else ""
    shown = table((*header, "seconds per step", "peak memory, GiB", "page faults"), lines)
    return "\n".join([first, "", *shown, "", "More times as fast is better; fewer of all else are better."])


def main(arguments: Arguments) -> int:
    """Prints the comparison; returns the exit status."""
    set_threads(arguments.threads)
    keep_freed_memory()
    if arguments.only is not None:
        build(arguments, arguments.only)()
        print(process_peak_gib(choose_device(arguments.device)))
        return 0
    rows = measure(arguments)
    print(report(rows))
    append(arguments.out, rows)
    reached = rows[-1]["times_published"]
    if arguments.least_ratio is not None and reached < arguments.least_ratio:
        print(f"error: the shared plan is {reached} times as fast, expected {arguments.least_ratio}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
