"""Rows and tables of the GPU report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from benchmarks import ops
from benchmarks.rows import Row, append, table
from benchmarks.timing import Ceilings

NOTHING_MEASURED = "DRY RUN on a CPU, kernels interpreted: nothing was measured, no GPU was used."
_SHOWN = ("op", "case", "dataset", "dtype", "mode", "what", "preset", "precision", "implementation", "batch_size")
# implementations whose failure is torch's: its attention and its compiler
EXCUSED = ("sdpa", "flex", "compile")
StageName = Literal["compile", "steps", "training", "evaluation", "parity", "pytest", "curves", "kernels", "compiled"]


@dataclass(frozen=True)
class Arguments:
    """What to run."""

    stages: tuple[StageName, ...] = get_args(StageName)
    """what to run, in the order of the help text's list whatever is given; the environment always"""
    dry_run: bool = False
    """tiny sizes on a CPU, to see that every stage runs"""
    out: Path = Path("runs/gpu_report")
    """directory of the result files, which are never overwritten"""
    budget: float = 460.0
    """seconds in all; a stage may use its share of what the ones before it left"""


class Report:
    """Rows as they come, in a file of JSON lines; tables at the end."""

    def __init__(self, arguments: Arguments, device: torch.device) -> None:
        self.device, self.is_dry = device, arguments.dry_run
        self.budget = arguments.budget
        self.deadline = self.stage_end = time.monotonic() + arguments.budget
        # of the device, measured once by the stage `environment`
        self.ceilings: Ceilings | None = None
        self.rows: list[Row] = []
        hardware = "dry_run" if self.is_dry else re.sub(r"\W+", "_", torch.cuda.get_device_name(device)).lower()
        moment = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
        self.path = arguments.out / f"gpu_report_{hardware}_{moment}.jsonl"

    def left(self) -> float:
        """Seconds that are left to the stage."""
        return min(self.deadline, self.stage_end) - time.monotonic()

    def begin(self, share: float) -> None:
        """Begins a stage that may use this share of what is left of the budget."""
        now = time.monotonic()
        self.stage_end = now + share * max(self.deadline - now, 0.0)

    def measured(self, **values: Any) -> Row:
        """Columns that were measured; none in a dry run, whose times are times of nothing."""
        return {} if self.is_dry else values

    def add(self, stage: str, status: str, **values: Any) -> None:
        """Writes a row; status is ok, failed, refused, absent (no kernel), not run, or left out.

        What the budget leaves no time for is "not run" if the report is incomplete without it, else "left out".
        """
        row = {"stage": stage, "status": status, **({"dry_run": True} if self.is_dry else {}), **values}
        self.rows.append(row)
        append(self.path, [row])
        shown = " ".join(str(values[name]) for name in _SHOWN if name in values)
        # of those there are hundreds, and a table
        is_usual = (stage, status) in (("parity", "ok"), ("kernels", "ok"), ("kernels", "refused"))
        if not is_usual:
            print(f"{stage}: {status} {shown} {values.get('why', '')}".rstrip(), flush=True)

    def is_complete(self) -> bool:
        """Whether everything ran that had to and no check failed; torch's own attention and compiler may break."""
        wrong = [row for row in self.rows if row["status"] in ("failed", "not run")]
        return all(row.get("implementation", "").startswith(EXCUSED) for row in wrong)

    def of(self, stage: str) -> list[Row]:
        """The rows of a stage."""
        return [row for row in self.rows if row["stage"] == stage]


def markdown(report: Report, tables: Mapping[str, Callable[[list[Row]], list[str]]]) -> str:
    """Returns all tables.

    Args:
        tables: for the rows of each stage that has any, by its title; a stage may be several, joined by " and ".
    """
    lines = ["# GPU report", ""]
    lines += [f"**{NOTHING_MEASURED}**", ""] if report.is_dry else []
    for row in report.of("environment"):
        lines += [f"{row['date']}, commit {row['commit']}", ""]
        known = {**row["versions"], **row["devices"], **row.get("ceilings", {})}
        lines += [f"* {name}: {value}" for name, value in known.items()]
    for row in report.of("pytest"):
        lines += ["", f"Tests marked gpu: {row['status']}; {row.get('summary', row.get('why'))}"]
    for title, tabulate in tables.items():
        rows = [row for stage in title.split(" and ") for row in report.of(stage)]
        lines += ["", f"## {title}", "", *tabulate(rows)] if rows else []
    wrong = [row for row in report.rows if row["status"] in ("failed", "not run", "left out", "refused")]
    lines.append("")
    # every refusal of a kernel stands in the table of kernels
    for row in (row for row in wrong if row["status"] != "refused" or row["stage"] not in ("parity", "kernels")):
        about = " ".join(str(row[name]) for name in _SHOWN if name in row)
        lines.append(f"* {row['stage']} {about}: **{row['status']}**, {row['why']}")
    return "\n".join(lines).rstrip() + "\n"


def kernel_table(rows: list[Row]) -> list[str]:
    """Returns the rows of `kernels` as a Markdown table."""
    return ops.report([row for row in rows if "mode" in row]).splitlines()


def parity_table(rows: list[Row]) -> list[str]:
    """Returns the rows of `parity` as a Markdown table."""
    lines: list[tuple[Any, ...]] = []
    groups = dict.fromkeys((row["op"], row.get("dtype", "-")) for row in rows if "op" in row)
    for op, dtype in groups:
        group = [row for row in rows if (row.get("op"), row.get("dtype", "-")) == (op, dtype)]
        if group[0]["status"] == "absent":
            lines.append((op, "-", "no kernel"))
            continue
        counts = [sum(row["status"] == status for row in group) for status in ("ok", "failed", "refused")]
        errors = [item for row in group for item in row.get("errors", {}).items()]
        largest = [
            max((error for name, error in errors if name.startswith(kind)), default=float("nan"))
            for kind in ("value", "gradient")
        ]
        lines.append((op, dtype, *counts, *(f"{error:.1e}" for error in largest)))
    return table(("op", "precision", "ok", "failed", "refused", "largest error of a value", "of a gradient"), lines)
