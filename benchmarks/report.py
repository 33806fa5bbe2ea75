"""Rows and tables of the GPU report."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks import ops

NOTHING_MEASURED = "DRY RUN on a CPU, kernels interpreted: nothing was measured, no GPU was used."
_SHOWN = ("op", "case", "dataset", "dtype", "mode", "opponent", "preset", "backend")
Row = dict[str, Any]


@dataclass(frozen=True)
class Arguments:
    """What to run."""

    check: bool = False
    """also check every kernel, time it beside its opponents, and run the tests marked gpu"""
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
        """Writes a row; status is ok, failed, refused, absent (no kernel), not run, or left out.

        What the budget leaves no time for is "not run" if the report is incomplete without it, else "left out".
        """
        row = {"stage": stage, "status": status, **({"dry_run": True} if self.is_dry else {}), **values}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = " ".join(str(values[name]) for name in _SHOWN if name in values)
        # of those there are hundreds, and a table
        is_usual = (stage, status) in (("parity", "ok"), ("kernels", "ok"), ("kernels", "refused"))
        if not is_usual:
            print(f"{stage}: {status} {shown} {values.get('why', '')}".rstrip(), flush=True)

    def is_complete(self) -> bool:
        """Whether everything ran that had to and no check failed; an opponent may be wrong or break."""
        wrong = [row for row in self.rows if row["status"] in ("failed", "not run")]
        return all(row.get("opponent", "triton") not in ops.OURS for row in wrong)

    def of(self, stage: str) -> list[Row]:
        """The rows of a stage."""
        return [row for row in self.rows if row["stage"] == stage]


def markdown(report: Report) -> str:
    """Returns all tables."""
    lines = ["# GPU report", ""]
    lines += [f"**{NOTHING_MEASURED}**", ""] if report.is_dry else []
    for row in report.of("environment"):
        lines += [f"{row['date']}, commit {row['commit']}", ""]
        lines += [f"* {name}: {known}" for name, known in {**row["versions"], **row["devices"]}.items()]
    lines += ["", *_parity_table(report.of("parity")), ""]
    timed = [row for row in report.of("kernels") if "opponent" in row]
    lines += [ops.markdown(timed), ""] if timed else []
    for row in report.of("pytest"):
        lines += [f"Tests marked gpu: {row['status']}; {row.get('summary', row.get('why'))}", ""]
    lines += [*_step_table(report.of("step"), report.is_dry), ""]
    wrong = [row for row in report.rows if row["status"] in ("failed", "not run", "left out")]
    for row in wrong:
        about = " ".join(str(row[name]) for name in _SHOWN if name in row)
        lines.append(f"* {row['stage']} {about}: **{row['status']}**, {row['why']}")
    return "\n".join(lines).rstrip() + "\n"


def _parity_table(rows: list[Row]) -> list[str]:
    if not rows:
        return ["Kernels were not checked (no --check)."]
    lines = ["| op | dtype | ok | failed | refused | largest error of a value | of a gradient |", "|" + " --- |" * 7]
    groups = dict.fromkeys((row["op"], row.get("dtype", "-")) for row in rows if "op" in row)
    for op, dtype in groups:
        own = [row for row in rows if (row.get("op"), row.get("dtype", "-")) == (op, dtype)]
        if own[0]["status"] == "absent":
            lines.append(f"| {op} | - | no kernel |  |  |  |  |")
            continue
        counts = [sum(row["status"] == status for row in own) for status in ("ok", "failed", "refused")]
        errors = [row["errors"] for row in own if "errors" in row]
        largest = []
        for kind in ("value", "gradient"):
            of_kind = (e for found in errors for name, e in found.items() if name.startswith(kind))
            largest.append(f"{max(of_kind, default=float('nan')):.1e}")
        lines.append(f"| {op} | {dtype} | {' | '.join([*map(str, counts), *largest])} |")
    return lines


def _step_table(rows: list[Row], is_dry: bool) -> list[str]:
    lines = ["| preset | precision | backend | plan | seconds per step: median (20 %, 80 %) | peak GiB | times plain |"]
    lines.append("|" + " --- |" * 7)
    plain = [row for row in rows if (row["backend"], row["plan"]) == ("torch", "plain")]
    base = {(row["preset"], row["precision"]): row.get("seconds_median") for row in plain}
    for row in rows:
        plan = f"{row['plan']}, captured" if row["captured"] else row["plan"]
        start = f"| {row['preset']} | {row['precision']} | {row['backend']} | {plan} |"
        if row["status"] != "ok" or is_dry:
            lines.append(f"{start} {'not measured' if row['status'] == 'ok' else row['status']} |  |  |")
            continue
        before = base.get((row["preset"], row["precision"]))
        ratio = f"{before / row['seconds_median']:.2f}" if before else "-"
        spread = f"{row['seconds_median']} ({row['seconds_q20']}, {row['seconds_q80']})"
        lines.append(f"{start} {spread} | {row['peak_memory_gib']} | {ratio} |")
    return lines
