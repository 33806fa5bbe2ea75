"""Who writes to a run directory: a lock that says "in use by process N on HOST" and dies with its process.

lock.json holds process, host and time, and the kernel's lock on it (flock) is held until the process ends, however it
ends. A lock file without a living process is taken over. What a file system cannot do limits this:

* Where it has no flock, the file's content decides alone: on the same host a dead process is recognized, and two
  processes that begin within the same moment may both believe that they are the owner.
* Where flock works on one host only (some network file systems), a file of another host may belong to a living
  process: it is refused, and the message says how to remove it. That is also so after a kill or a crash of that host.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pps_fast.files import host_name, is_alive, naming_full_disk

LOCK_FILE = "lock.json"
_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)
LOCKS_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
# how long a process may take from its lock to the content that names it
_PATIENCE_S = 2.0


class InUse(ValueError):
    """A run directory that another process has."""


class RunLock:
    """The lock of one run directory, held by this process from `acquire` to `release`.

    Args:
        run: the run directory; it is created where it does not exist.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.path = run / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock, or takes it over from a process that is dead.

        Raises:
            InUse: while another process has it, or where a process of another host may have it.
        """
        end = time.monotonic() + _PATIENCE_S
        while not self._try():
            owner = self.read()
            if owner is not None or time.monotonic() > end:
                raise InUse(self._refusal(owner))
            time.sleep(0.01)

    def release(self) -> None:
        """Gives the lock back and deletes its file."""
        if self._descriptor is not None:
            if self.is_there():
                # while it is held: whoever opened the file before sees that it is gone, and opens the next one
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def is_there(self) -> bool:
        """Whether the file that is locked is still the one in the directory."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), there)

    def renew(self) -> None:
        """Takes the lock again after its directory was deleted.

        Raises:
            ValueError: where another process was faster.
        """
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self.acquire()

    def _try(self) -> bool:
        """Takes the lock if nobody has it; returns whether this process has it now."""
        self.run.mkdir(parents=True, exist_ok=True)
        # not through a link, and not inherited by other programs
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        is_taken = False
        try:
            is_taken = self._take(has_kernel_lock=_lock(self._descriptor))
        finally:
            if not is_taken:
                os.close(self._descriptor)
                self._descriptor = None
        return is_taken

    def _take(self, *, has_kernel_lock: bool | None) -> bool:
        # None: another process has it; the file may have been deleted between its opening and its locking
        if has_kernel_lock is None or not self.is_there():
            return False
        owner = self.read()
        if owner is not None and not _is_dead(owner, has_kernel_lock):
            return False
        self._write()
        return True

    def _write(self) -> None:
        owner = {"pid": os.getpid(), "host": host_name(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        if self._descriptor is not None:
            with naming_full_disk(self.path):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, (json.dumps(owner) + "\n").encode(), 0)
                os.fsync(self._descriptor)

    def read(self) -> dict[str, Any] | None:
        """Returns pid, host and time of the owner; None where nobody, or a killed process, has written them whole."""
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        is_owner = isinstance(values, dict) and isinstance(values.get("pid"), int) and "host" in values
        return values if is_owner else None

    def _refusal(self, owner: dict[str, Any] | None) -> str:
        if owner is None:
            return f"{self.run}: in use by another process, which has not said its number; choose another --out"
        where = f"in use by process {owner['pid']} on {owner['host']}, since {owner.get('started', 'an unknown time')}"
        if owner["host"] == host_name():
            return f"{self.run}: {where}; wait until it ends, stop it, or choose another --out"
        return (
            f"{self.run}: {where}; choose another --out. If that process has ended without removing {self.path} "
            "(a kill, a crash of that host), delete that file and repeat the command"
        )


def owner_of(run: Path) -> str:
    """Returns in words which process a run's lock file names."""
    owner = RunLock(run).read()
    return "another process" if owner is None else f"process {owner['pid']} on {owner['host']}"


def _lock(descriptor: int) -> bool | None:
    """Asks the kernel for the lock; returns True with it, None where another process has it, False without support."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return None
        if error.errno in LOCKS_NOT_SUPPORTED:
            return False
        raise
    return True


def _is_dead(owner: dict[str, Any], has_kernel_lock: bool) -> bool:
    """Whether the process that a lock file names has ended for certain."""
    if owner["host"] != host_name():
        return False
    # on the same host whoever gets the kernel's lock knows that nobody has it
    return has_kernel_lock or owner["pid"] == os.getpid() or not is_alive(owner["pid"])


# run directory -> the thread of this process that has it, and its lock
_HELD: dict[Path, tuple[int, RunLock]] = {}


@contextmanager
def owning(run: Path) -> Iterator[RunLock]:
    """Holds the lock of a run directory inside the block; blocks of the same thread for the same run may be nested.

    A directory that the lock alone has created is removed again, so that a refused run leaves nothing.

    Raises:
        ValueError: for a place that is a file; InUse while another process has the lock, or one of another host may.
    """
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run}: a file, expected a directory for the run; choose another --out")
    name, thread = run.resolve(), threading.get_ident()
    if name in _HELD and _HELD[name][0] == thread:
        yield _HELD[name][1]
        return
    is_new = not run.exists()
    lock = RunLock(run)
    lock.acquire()
    _HELD[name] = (thread, lock)
    try:
        yield lock
    finally:
        del _HELD[name]
        lock.release()
        if is_new and run.is_dir() and not any(run.iterdir()):
            run.rmdir()
