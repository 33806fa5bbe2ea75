"""What a run computed on, and with which code: what has to be equal for results to be equal bit for bit."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from pps_fast import __version__
from pps_fast.devices import cpu_name


def environment(num_processes: int | None = None) -> dict[str, Any]:
    """Returns versions of pps_fast and torch, the commit, the CPU, and the number of its threads torch uses now.

    Args:
        num_processes: how many divide the batches of a training among them; recorded where it is given.
    """
    processes = {} if num_processes is None else {"processes": num_processes}
    return {
        **processes,
        "pps_fast": __version__,
        "torch": str(torch.__version__),
        "commit": source_commit(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
    }


def differences_that_move_bits(recorded: dict[str, Any], num_processes: int = 1) -> str | None:
    """Returns a sentence if this process rounds otherwise than one whose `environment` was recorded, else None.

    Args:
        recorded: of a checkpoint; empty where that was not recorded.
        num_processes: of this training.
    """
    current = environment(num_processes)
    changes = [
        f"{name} was {recorded[name]}, is {current[name]}"
        for name in ("processes", "threads", "cpu", "torch")
        if name in recorded and recorded[name] != current[name]
    ]
    if not changes:
        return None
    return (
        f"{'; '.join(changes)}: sums are taken in another order, so that from here on the bits will differ from those "
        "of a run that was not interrupted"
    )


@lru_cache(maxsize=1)
def source_commit() -> str:
    """Returns the commit of the checkout that this code runs from, with "+changes" where tracked files differ."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown (git is not installed)"
    if head.returncode != 0:
        return "unknown (not a checkout)"
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
