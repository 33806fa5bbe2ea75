"""Peak memory of a process and of a call, on a GPU and on a CPU under Linux."""

from __future__ import annotations

import ctypes
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import wait


def process_peak_gib(device: torch.device) -> float:
    """Returns the most memory that this process has held, in GiB: on a GPU of tensors, on a CPU of everything."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    try:
        # of this program; the other figure keeps the peak of the process that started it
        kib = _status_kib("VmHWM")
    except OSError:
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kib / 2**20, 2)


def peak_gib(run: Callable[[], Any], device: torch.device) -> float | None:
    """Returns the memory that one call needs beyond what was held before, in GiB; None where that is not told.

    On a CPU from Linux's record of the process's peak, which a process may reset.
    """
    if device.type == "cuda":
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        wait(device)
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**30, 3)
    try:
        # what the allocator keeps would not be seen to be taken again
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_kib("VmRSS")
    except (OSError, AttributeError):
        run()
        return None
    run()
    return round((_status_kib("VmHWM") - before) / 2**20, 3)


def _status_kib(name: str) -> int:
    """A line of /proc/self/status, in KiB; OSError where there is none."""
    line = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if line is None:
        raise OSError(f"/proc/self/status has no {name}")
    return int(line.group(1))
