"""What the machine has: free memory and free space on a disk, checked before something large is begun."""

from __future__ import annotations

import os
import resource
import shutil
import warnings
from pathlib import Path

from pps_fast.files import Note
from pps_fast.reading import Refused, shown

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
# times what is free: estimates are closer than that, and no swap space is that large
_HOPELESS = 4


def free_memory() -> int | None:
    """Bytes of memory that this process can still take: the least of machine, container and process limits.

    None where the system does not tell.
    """
    limits = [_free_of_machine(), *(_free_of_container(*paths) for paths in _CGROUPS), _free_of_process()]
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else None


def require_memory(num_bytes: int, what: str, remedy: str = "use a larger machine") -> None:
    """Refuses what would not fit into the free memory, before any of it is allocated.

    Raises:
        Refused: "WHAT needs 3.7 TiB of memory, 21.0 GiB are free; REMEDY".
    """
    free = free_memory()
    if free is not None and num_bytes > free:
        raise Refused(f"{what} needs {size_text(num_bytes)} of memory, {size_text(free)} are free; {remedy}")


def note_memory(num_bytes: int, free: int | None, what: str, remedy: str = "use a larger machine") -> None:
    """Says in one sentence where an estimate of what is needed is more than what is free.

    Args:
        num_bytes: estimate of what will be taken.
        free: bytes; None where the system does not tell.

    Raises:
        Refused: where it is so much more that no estimate is that wrong: "WHAT needs about ... are free; REMEDY".
    Warns:
        Note: "WHAT needs about 3.7 GiB of memory, 2.0 GiB are free: the system may stop it; REMEDY".
    """
    if free is not None and num_bytes > free:
        sizes = f"needs about {size_text(num_bytes)} of memory, {size_text(free)} are free"
        if num_bytes > _HOPELESS * free:
            raise Refused(f"{what} {sizes}; {remedy}")
        warnings.warn(f"{what} {sizes}: the system may stop it; {remedy}", Note, stacklevel=2)


def require_space(path: Path, num_bytes: int) -> None:
    """Refuses, before any of it is written, a file that would not fit on the disk of `path`.

    The file is written beside an older one of the same name, whose space is free only afterwards.

    Raises:
        ValueError: naming file, sizes and remedy.
    """
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        # a missing folder or a file system without sizes: the writing itself tells what is wrong
        return
    if num_bytes > free:
        sizes = f"needs {size_text(num_bytes)} on the disk, {size_text(free)} are free"
        raise ValueError(f"{shown(path)}: {sizes}; make room or name a file on another disk")


def size_text(num_bytes: float) -> str:
    """Returns a number of bytes in the unit that fits, "21.0 GiB"."""
    if num_bytes < 1024:
        return f"{num_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        num_bytes /= 1024
        if num_bytes < 1024:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes:,.0f} TiB"


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _free_of_container(limit: str, usage: str) -> int | None:
    try:
        most, used = (Path(path).read_text(encoding="ascii").strip() for path in (limit, usage))
        return int(most) - int(used) + _cached_files(Path(usage).parent / "memory.stat")
    except (OSError, ValueError):
        # no such control group, or the limit is "max"
        return None


def _cached_files(statistics: Path) -> int:
    """Bytes of files that a container has read and the system gives up for others; they count as used there."""
    try:
        lines = (line.split() for line in statistics.read_text(encoding="ascii").splitlines())
        values = {name: int(value) for name, value in lines}
    except (OSError, ValueError):
        return 0
    # of the older version the sums over groups below it begin with total_
    return sum(values.get(f"total_{name}", values.get(name, 0)) for name in ("active_file", "inactive_file"))


def _free_of_process() -> int | None:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return most
    return most - pages * resource.getpagesize()
