"""How the cost of a training step grows: python -m benchmarks.growth --out benchmarks/results

Times the shared plan's whole training step around a base size, one size at a time: proposals K (proposal k has k
components, E = K (K + 1) / 2 in all), mask positions T, batch, vocabulary. All points take turns in rounds, in another
order each, so that a machine whose speed drifts slows all of them alike. For each axis two exponents of time ~ size^a:
fitted through all points, and local, between the last two; each is computed per round and given as the median with
20 and 80 % quantiles over rounds. Beside them stand the same exponents of the counted matrix products.

The base on a CPU is small, so that its step takes less than about a second on one core; on a GPU, where steps are
captured, it is Charades with batch 32. Writes growth_<hardware>_<yyyymmdd>.jsonl and .md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks.count_step import matmul_gflop
from benchmarks.memory import peak_gib
from benchmarks.rows import Row, about_machine, append, short, table
from benchmarks.step import BATCH_SIZE, build_step, random_batch, runner
from benchmarks.timing import in_turn, quantiles, spread
from pps_fast.config_tree import override
from pps_fast.devices import Device, choose_device, keep_freed_memory, set_threads
from pps_fast.ops.dispatch import use_backend
from pps_fast.presets import PRESETS
from pps_fast.proposals.layout import ramp
from pps_fast.types import FeatureSizes

Axis = Literal["proposals", "positions", "batch", "vocabulary"]
# stride 8, 4, 2, 1 of 200 segments gives 25, 50, 100, 200 positions
AXES: dict[Axis, tuple[int, ...]] = {
    "proposals": (1, 2, 3, 5, 7, 9),
    "positions": (25, 50, 100, 200),
    "batch": (4, 8, 16, 32, 64),
    "vocabulary": (500, 1000, 2000, 4000, 8000, 16000),
}
NUM_SEGMENTS = 200
# words of every sentence: batches of any size then have the same columns
NUM_WORDS = 8
# replays of a captured step that are timed together on a GPU
_REPLAYS = 20


@dataclass(frozen=True)
class Point:
    """The size of a step: K, T, B, V, D, and the width F of a segment's features."""

    proposals: int
    positions: int
    batch: int
    vocabulary: int
    width: int
    frame_dim: int


BASES = {
    "small": Point(proposals=5, positions=50, batch=8, vocabulary=1000, width=128, frame_dim=256),
    "charades": Point(proposals=7, positions=50, batch=BATCH_SIZE, vocabulary=1000, width=256, frame_dim=1024),
    # for trials of this code
    "tiny": Point(proposals=2, positions=25, batch=2, vocabulary=500, width=16, frame_dim=8),
}


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    base: Literal["auto", "small", "charades", "tiny"] = "auto"
    """size around which one size at a time is varied; 'auto' is small on a CPU and charades on a GPU"""
    axes: tuple[Axis, ...] = tuple(AXES)
    """sizes to vary"""
    rounds: int = 7
    """timed rounds, after a warm-up round"""
    device: Device = "auto"
    """where"""
    threads: int = 1
    """CPU threads"""
    out: Path | None = None
    """directory of the result files; without one the table is only printed"""


def points_of(base: Point, axes: Sequence[Axis]) -> dict[Axis, list[Point]]:
    """Returns the points of every axis, the base among them where it lies on the axis."""
    return {axis: [replace(base, **{axis: value}) for value in AXES[axis]] for axis in axes}


def build(point: Point, device: torch.device, is_captured: bool = False) -> Callable[[], Any]:
    """Returns a function that trains once."""
    changes = {
        "proposals.num_proposals": point.proposals,
        "reconstructor.stride": NUM_SEGMENTS // point.positions,
        "encoder.hidden_dim": point.width,
    }
    config = override(PRESETS["charades"], changes)
    sizes = FeatureSizes(
        frame_dim=point.frame_dim, word_dim=300, vocab_size=point.vocabulary, num_segments=NUM_SEGMENTS
    )
    batch = random_batch(sizes, (NUM_WORDS,) * 4, point.batch, device)
    return runner(build_step(config, sizes, device), batch, is_captured)


@dataclass(frozen=True)
class Cost:
    """What a step of one size takes: seconds in each round, GFLOP of products, GiB beyond what was held before."""

    seconds: list[float]
    gflop: float
    peak_gib: float | None


def measure(points: Sequence[Point], device: torch.device, rounds: int) -> dict[Point, Cost]:
    """Times points in turn, and counts what each multiplies and how much memory it takes."""
    points = list(dict.fromkeys(points))
    kept: dict[Point, Callable[[], Any]] = {}

    def make(point: Point) -> Callable[[], Any]:
        if device.type == "cuda":
            # the graphs of all points do not fit into memory together
            torch.cuda.empty_cache()
            return build(point, device, is_captured=True)
        if point not in kept:
            kept[point] = build(point, device)
        return kept[point]

    gflop, peaks = {}, {}
    for point in points:
        # the equations, whose operators the counter knows
        with use_backend("torch"):
            gflop[point] = matmul_gflop(build(point, device))
        peaks[point] = peak_gib(make(point), device)
    seconds = in_turn(points, make, device, rounds, calls=_REPLAYS if device.type == "cuda" else 1)
    return {point: Cost(seconds[point], gflop[point], peaks[point]) for point in points}


def rows_of(points: dict[Axis, list[Point]], costs: dict[Point, Cost]) -> list[Row]:
    """Returns a row for every point of every axis, and one of exponents for every axis."""
    rows = []
    for axis, on_axis in points.items():
        for point in on_axis:
            cost = costs[point]
            sizes = {"axis": axis, "value": getattr(point, axis), **asdict(point)}
            sizes["components"] = ramp(point.proposals).num_components
            seconds = {**quantiles(cost.seconds), "seconds": [short(value) for value in cost.seconds]}
            others = {"matmul_gflop": round(cost.gflop, 3), "peak_memory_gib": cost.peak_gib}
            rows.append({"what": "growth", **sizes, **seconds, **others})
        values = [getattr(point, axis) for point in on_axis]
        rows.append({"what": "growth exponents", "axis": axis, **_exponents(values, [costs[p] for p in on_axis])})
    return rows


def _exponents(values: Sequence[float], costs: Sequence[Cost]) -> Row:
    rounds = list(zip(*(cost.seconds for cost in costs), strict=True))
    gflop = [cost.gflop for cost in costs]
    exponents: Row = {}
    for name, part in (("fitted", slice(None)), ("local", slice(-2, None))):
        of_rounds = spread([exponent(values[part], seconds[part]) for seconds in rounds])
        exponents[name] = {quantile: round(value, 3) for quantile, value in of_rounds.items()}
        exponents[f"gflop_{name}"] = round(exponent(values[part], gflop[part]), 3)
    return exponents


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns a of cost ~ size^a by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def report(rows: Sequence[Row]) -> str:
    """Returns the rows as tables: exponents first, then every point."""
    exponents = []
    for row in (row for row in rows if row["what"] == "growth exponents"):
        of_time = ["{median:.2f} ({q20:.2f}, {q80:.2f})".format(**row[name]) for name in ("fitted", "local")]
        exponents.append((row["axis"], *of_time, row["gflop_fitted"], row["gflop_local"]))
    points = []
    for row in (row for row in rows if row["what"] == "growth"):
        seconds = "{seconds_median:g} ({seconds_q20:g}, {seconds_q80:g})".format(**row)
        rate = (f"{row['matmul_gflop']:.4g}", f"{row['matmul_gflop'] / row['seconds_median']:.4g}")
        points.append((row["axis"], row["value"], row["components"], seconds, *rate, row["peak_memory_gib"]))
    header = ("size", "exponent of time: median (20 %, 80 %)", "between the last two", "of the products", "last two")
    lines = [*table(header, exponents), ""]
    header = ("size", "value", "components E", "seconds: median (20 %, 80 %)", "GFLOP of products", "GFLOP/s")
    lines += [*table((*header, "peak memory, GiB"), points), ""]
    return "\n".join([*lines, "Time ~ size ^ exponent: smaller exponents, fewer seconds and more GFLOP/s are better."])


def main(arguments: Arguments) -> int:
    """Measures, prints and writes; returns the exit status."""
    device = choose_device(arguments.device)
    set_threads(arguments.threads)
    keep_freed_memory()
    base = arguments.base if arguments.base != "auto" else "charades" if device.type == "cuda" else "small"
    points = points_of(BASES[base], arguments.axes)
    costs = measure([point for on_axis in points.values() for point in on_axis], device, arguments.rounds)
    about = {"base": base, "rounds": arguments.rounds, "captured": device.type == "cuda", **about_machine(device)}
    rows = [{**row, **about} for row in rows_of(points, costs)]
    said = f"{about['hardware']}, {about['threads']} threads, torch {about['torch']}, commit {about['commit']}"
    sizes = ", ".join(f"{name} {value}" for name, value in asdict(BASES[base]).items())
    text = f"# Growth of a training step\n\n{said}; base: {sizes}; {arguments.rounds} rounds\n\n{report(rows)}\n"
    print(text)
    if arguments.out is not None:
        hardware = "cpu" if device.type == "cpu" else re.sub(r"\W+", "_", about["hardware"]).lower()
        path = arguments.out / f"growth_{hardware}_{datetime.now(timezone.utc):%Y%m%d}.jsonl"
        append(path, rows)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
