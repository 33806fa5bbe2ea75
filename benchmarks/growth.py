"""How the cost of a training step grows: python -m benchmarks.growth --out benchmarks/results

Times the shared plan's whole training step around a base size, one size at a time: proposals K (proposal k has k
components, E = K (K + 1) / 2 in all), mask positions T, batch, vocabulary. All points take turns in rounds, in another
order each, so that a machine whose speed drifts slows all of them alike. For each axis two exponents of time ~ size^a:
fitted through all points, and local, between the last two; each is computed per round and given as the median with
20 and 80 % quantiles over rounds. Beside them stand the same exponents of the counted matrix products.

The base on a CPU is small, so that its step takes less than about a second on one core; on a GPU, where steps are
captured, it is Charades with batch 32. Writes growth_<hardware>_<yyyymmdd>.jsonl and .md, with --plot also .png.
"""

from __future__ import annotations

import ctypes
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks import step
from benchmarks.compare import matmul_gflop, timed
from benchmarks.ops import about_machine
from benchmarks.timing import quantiles
from pps_fast.backend import use_backend
from pps_fast.cli import Device, choose_device, set_threads
from pps_fast.config_tree import override
from pps_fast.layout import ramp
from pps_fast.presets import PRESETS
from pps_fast.types import FeatureSizes

Row = dict[str, Any]
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
    "charades": Point(proposals=7, positions=50, batch=32, vocabulary=1000, width=256, frame_dim=1024),
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
    plot: bool = False
    """also draw the times; needs matplotlib"""


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
    batch = step.random_batch(sizes, (NUM_WORDS,) * 4, point.batch, device)
    return step.runner(step.build_step(config, sizes, device), batch, is_captured)


class Bench:
    """Times points in turn, and knows what each multiplies and how much memory it takes."""

    def __init__(self, points: Sequence[Point], device: torch.device) -> None:
        self.points, self.device = list(dict.fromkeys(points)), device
        self.seconds: dict[Point, list[float]] = {point: [] for point in self.points}
        self.gflop: dict[Point, float] = {}
        self.peak_gib: dict[Point, float | None] = {}
        self._kept: dict[Point, Callable[[], Any]] = {}

    def measure(self, rounds: int) -> None:
        """One round that counts and warms up, then the timed ones."""
        for point in self.points:
            self._count(point)
        order = np.random.default_rng(0)
        for number in range(rounds):
            for index in order.permutation(len(self.points)):
                point = self.points[index]
                self.seconds[point].append(self._time(self._runner(point)))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)

    def _runner(self, point: Point) -> Callable[[], Any]:
        if self.device.type == "cuda":
            # the graphs of all points do not fit into memory together
            torch.cuda.empty_cache()
            return build(point, self.device, is_captured=True)
        if point not in self._kept:
            self._kept[point] = build(point, self.device)
        return self._kept[point]

    def _time(self, run: Callable[[], Any]) -> float:
        if self.device.type == "cpu":
            return timed(run, self.device)
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(_REPLAYS):
            run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / _REPLAYS

    def _count(self, point: Point) -> None:
        """Counts products with the equations, whose operators the counter knows; then runs once for the memory."""
        with use_backend("torch"):
            self.gflop[point] = matmul_gflop(build(point, self.device))
        self.peak_gib[point] = peak_gib(self._runner(point), self.device)

    def rows(self, points: dict[Axis, list[Point]]) -> list[Row]:
        """Returns a row for every point of every axis, and one of exponents for every axis."""
        found = []
        for axis, own in points.items():
            for point in own:
                found.append(
                    {
                        "what": "growth",
                        "axis": axis,
                        "value": getattr(point, axis),
                        **asdict(point),
                        "components": ramp(point.proposals).num_components,
                        **quantiles(self.seconds[point]),
                        "seconds": [float(f"{value:.4g}") for value in self.seconds[point]],
                        "matmul_gflop": round(self.gflop[point], 3),
                        "peak_memory_gib": self.peak_gib[point],
                    }
                )
            found.append({"what": "growth exponents", "axis": axis, **self._exponents(axis, own)})
        return found

    def _exponents(self, axis: Axis, points: list[Point]) -> Row:
        values = [getattr(point, axis) for point in points]
        rounds = list(zip(*(self.seconds[point] for point in points), strict=True))
        gflop = [self.gflop[point] for point in points]
        return {
            "fitted": spread([exponent(values, seconds) for seconds in rounds]),
            "local": spread([exponent(values[-2:], seconds[-2:]) for seconds in rounds]),
            "gflop_fitted": round(exponent(values, gflop), 3),
            "gflop_local": round(exponent(values[-2:], gflop[-2:]), 3),
        }


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns a of cost ~ size^a by least squares of the logarithms."""
    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(costs, dtype=float))
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, 20 % and 80 % quantile."""
    fifths = statistics.quantiles(values, n=5) if len(values) > 1 else list(values) * 4
    named = {"median": statistics.median(values), "q20": fifths[0], "q80": fifths[-1]}
    return {name: round(value, 3) for name, value in named.items()}


def peak_gib(run: Callable[[], Any], device: torch.device) -> float | None:
    """Returns the memory that one call needs beyond what was held before, in GiB; None where that is not told.

    On a CPU from Linux's record of the process's peak, which a process may reset.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**30, 3)
    try:
        # what the allocator keeps would not be seen to be taken again
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident_kib("VmRSS")
        run()
        return round((_resident_kib("VmHWM") - before) / 2**20, 3)
    except (OSError, AttributeError):
        run()
        return None


def _resident_kib(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {name}")
    return int(found.group(1))


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as Markdown: exponents first, then every point."""
    names = ("size", "exponent of time: median (20 %, 80 %)", "between the last two", "of the products", "last two")
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for row in rows:
        if row["what"] == "growth exponents":
            of_time = ["{median:.2f} ({q20:.2f}, {q80:.2f})".format(**row[name]) for name in ("fitted", "local")]
            lines.append(f"| {row['axis']} | {' | '.join(of_time)} | {row['gflop_fitted']} | {row['gflop_local']} |")
    names = ("size", "value", "E", "seconds: median (20 %, 80 %)", "GFLOP of products", "GFLOP/s", "peak GiB")
    lines += ["", f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for row in rows:
        if row["what"] == "growth":
            seconds = "{seconds_median:g} ({seconds_q20:g}, {seconds_q80:g})".format(**row)
            rate = f"{row['matmul_gflop']:.4g} | {row['matmul_gflop'] / row['seconds_median']:.4g}"
            start = f"| {row['axis']} | {row['value']} | {row['components']} |"
            lines.append(f"{start} {seconds} | {rate} | {row['peak_memory_gib']} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws time and products over each size, both on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure, panels = pyplot.subplots(1, len(axes), figsize=(3.5 * len(axes), 3), sharey=True, squeeze=False)
    for axis, panel in zip(axes, panels[0], strict=True):
        own = [row for row in rows if row["what"] == "growth" and row["axis"] == axis]
        values, medians = [row["value"] for row in own], [row["seconds_median"] for row in own]
        below = [row["seconds_median"] - row["seconds_q20"] for row in own]
        above = [row["seconds_q80"] - row["seconds_median"] for row in own]
        panel.errorbar(values, medians, [below, above], marker="o", label="seconds")
        # the products scaled to the first time, so that the slopes can be compared
        scale = medians[0] / own[0]["matmul_gflop"]
        panel.plot(values, [scale * row["matmul_gflop"] for row in own], "--", label="products, scaled")
        panel.set(xscale="log", yscale="log", xlabel=axis)
    panels[0][0].set_ylabel("seconds per step")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(arguments: Arguments) -> int:
    """Measures, prints and writes; returns the exit status."""
    device = choose_device(arguments.device)
    set_threads(arguments.threads)
    base = arguments.base if arguments.base != "auto" else "charades" if device.type == "cuda" else "small"
    points = points_of(BASES[base], arguments.axes)
    bench = Bench([point for own in points.values() for point in own], device)
    bench.measure(arguments.rounds)
    about = {"base": base, "rounds": arguments.rounds, "captured": device.type == "cuda", **about_machine(device)}
    rows = [{**row, **about} for row in bench.rows(points)]
    said = f"{about['hardware']}, {about['threads']} threads, torch {about['torch']}, commit {about['commit']}"
    sizes = ", ".join(f"{name} {value}" for name, value in asdict(BASES[base]).items())
    text = f"# Growth of a training step\n\n{said}; base: {sizes}; {arguments.rounds} rounds\n\n{table(rows)}\n"
    print(text)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        hardware = "cpu" if device.type == "cpu" else re.sub(r"\W+", "_", torch.cuda.get_device_name(device)).lower()
        path = arguments.out / f"growth_{hardware}_{datetime.now(timezone.utc):%Y%m%d}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        if arguments.plot:
            plot(rows, path.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
