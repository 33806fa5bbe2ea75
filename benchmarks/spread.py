"""How far apart trainings of one preset end: over seeds, over numbers of threads, and over rounding alone.

    python -m benchmarks.spread runs/seed0 runs/seed1 ... --out FILE

Reads finished run directories of `python -m pps_fast.train` that differ in `train.seed`, `--threads` and
`reconstructor.schedule`. Two runs of one seed compute the same and round otherwise: another number of threads, and the
other schedule, take sums in another order.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import tyro

from benchmarks.rows import short, table
from pps_fast.config_tree import flatten, override, to_dict
from pps_fast.files import read_json, replace_text
from pps_fast.runs.checkpoint import find_checkpoint, read_header

VARIED = ("train.seed", "reconstructor.schedule")
METRIC = "R@1 mIoU"


@dataclass(frozen=True)
class Arguments:
    """Which runs, and where the result goes."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """finished run directories"""
    out: Path
    """JSON file to write"""


def read_run(run: Path) -> dict[str, Any]:
    """Returns seed, threads, schedule and R@1 of a run, and what all runs of a spread must share.

    Raises:
        ValueError: for a directory that is no finished run.
    """
    header = read_header(find_checkpoint(run))
    values = flatten(to_dict(header.config))
    shared = flatten(to_dict(override(header.config, {"train.seed": 0, "reconstructor.schedule": "shared"})))
    rows = read_json(run / "evaluation_test.json", ("rows",))["rows"]
    environment = {name: value for name, value in header.environment.items() if name != "threads"}
    return {
        "row": {
            "seed": values["train.seed"],
            "threads": header.environment["threads"],
            "schedule": values["reconstructor.schedule"],
            **{metric: estimate["value"] for metric, estimate in rows["model"].items() if metric.startswith("R@1")},
            "shuffled mIoU": rows["model, shuffled queries"][METRIC]["value"],
        },
        "shared": {"config": shared, "environment": environment, "data": header.data["sha256"]},
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the record of some runs.

    seeds: for each way to round, mean and standard deviation over seeds. rounding: of each two ways, the differences of
    the runs of one seed, and the standard deviation of one run that they give, sqrt(mean(d^2) / 2).

    Raises:
        ValueError: for runs that differ in more than seed, threads and schedule.
    """
    if any(run["shared"] != runs[0]["shared"] for run in runs):
        raise ValueError("the runs differ in more than seed, threads and schedule; name runs of one preset and machine")
    ways: dict[str, dict[int, float]] = {}
    for row in (run["row"] for run in runs):
        way = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}, {row['schedule']}"
        ways.setdefault(way, {})[row["seed"]] = row[METRIC]
    seeds = {
        way: {"runs": len(values), "mean": short(mean(values.values())), "std": short(stdev(values.values()), 3),
              "low": short(min(values.values())), "high": short(max(values.values()))}
        for way, values in ways.items() if len(values) > 1
    }  # fmt: skip
    rounding = {}
    for first, second in combinations(ways, 2):
        common = sorted(ways[first].keys() & ways[second].keys())
        differences = [short(ways[second][seed] - ways[first][seed], 3) for seed in common]
        std = math.sqrt(mean(value**2 for value in differences) / 2) if differences else math.nan
        if differences:
            rounding[f"{second} - {first}"] = {"differences": differences, "std": short(std, 3)}
    return {
        "metric": METRIC,
        "unit": "percent",
        **runs[0]["shared"]["environment"],
        "data": runs[0]["shared"]["data"],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seeds": seeds,
        "rounding": rounding,
        "rows": [run["row"] for run in runs],
    }


def format_record(record: dict[str, Any]) -> str:
    """Returns the tables of a record as Markdown."""
    seeds = [[way, *values.values()] for way, values in record["seeds"].items()]
    pairs = [
        [way, " ".join(f"{value:+.2f}" for value in values["differences"]), values["std"]]
        for way, values in record["rounding"].items()
    ]
    lines = table(["threads, schedule", "runs", f"mean {record['metric']}", "std over seeds", "low", "high"], seeds)
    return "\n".join([*lines, "", *table(["same seed, other rounding", "differences", "std of one run"], pairs)])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = tyro.cli(Arguments, args=argv, prog="python -m benchmarks.spread", description=__doc__.split("\n")[0])
    try:
        record = summarize([read_run(run) for run in arguments.runs])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    replace_text(arguments.out, json.dumps(record) + "\n")
    print(format_record(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
