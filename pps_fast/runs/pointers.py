"""latest.json and best.json: which checkpoints of a run are used; those that no pointer names are deleted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pps_fast.files import write_json
from pps_fast.runs.leftovers import CHECKPOINTS, delete_checkpoint, delete_leftovers, is_checkpoint
from pps_fast.runs.records import Pointer, read_record

Which = Literal["best", "latest"]


def point(run: Path, which: Which, checkpoint: Path, **extra: Any) -> None:
    """Makes `checkpoint` the run's latest or best one; `extra` is written beside it."""
    values = {"checkpoint": checkpoint.relative_to(run).as_posix(), **extra}
    write_json(run / f"{which}.json", values)


def read_pointer(run: Path, which: Which) -> dict[str, Any] | None:
    """Returns what `point` wrote, or None where the run has no such checkpoint yet.

    Raises:
        ValueError: for a file that names no checkpoint of this run; the message names it.
    """
    path = run / f"{which}.json"
    if not path.exists():
        return None
    values = asdict(read_record(Pointer, path))
    return {name: value for name, value in values.items() if value is not None}


def prune(run: Path) -> None:
    """Deletes the checkpoints that neither latest.json nor best.json names, and what a killed process has left.

    Only what `leftovers` proves to be ours: a copy of another name, a checkpoint with other files in it, or anything
    behind a symbolic link stays.
    """
    pointers = [read_pointer(run, which) for which in ("latest", "best")]
    kept = {Path(pointer["checkpoint"]).name for pointer in pointers if pointer is not None}
    folder = run / CHECKPOINTS
    for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else ():
        if path.name not in kept and is_checkpoint(path):
            delete_checkpoint(path)
    delete_leftovers(run)
