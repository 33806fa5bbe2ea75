"""Rows of results: JSON lines that say where they were measured, and tables of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pps_fast.info import cpu_name

# the checkout, from which subprocesses are started
ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]


def commit() -> str:
    """Returns the checkout's commit in short, "-dirty" after it where tracked files differ."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip() or "unknown"


def about_machine(device: torch.device) -> Row:
    """Returns what every row says about where it was measured."""
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


def append(path: Path | None, rows: Sequence[Row]) -> None:
    """Appends rows to a file of JSON lines, if there is a path; makes its directory."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def short(value: float, digits: int = 4) -> float:
    """Returns a number to so many significant digits."""
    return float(f"{value:.{digits}g}")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the lines of a Markdown table with aligned columns; rows may be shorter than the header."""
    cells = [[str(cell) for cell in row] + [""] * (len(header) - len(row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return [lines[0], "| " + " | ".join("-" * max(width, 3) for width in widths) + " |", *lines[1:]]
