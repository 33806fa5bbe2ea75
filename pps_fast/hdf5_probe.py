"""A look at an HDF5 file in another process first, because a damaged one can hang or crash the library.

One process serves all questions: it forks a child for each file, which walks over groups, data sets and texts as a
reader does, and is killed when it no longer gets on. Values of plain data sets are not read; they can do no harm.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

import h5py

from pps_fast.reading import Refused

# seconds without getting on by one object; a file server that wakes up takes less
PATIENCE_S = 30.0
_MEMORY = 4 << 30
# a text needs its place in the data set; more of them than this are no words of a data set
_MOST_TEXTS = 100_000_000
_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from pps_fast.hdf5_probe import serve; serve()"
_LOCK = threading.Lock()
_WALKED, _HANGS, _CRASHES, _HAS_BAD_TEXTS = b"walked\n", b"hangs\n", b"crashes\n", b"bad texts\n"


def require_harmless(path: Path, *, needs_texts: bool = False) -> None:
    """Refuses an HDF5 file whose structure hangs or crashes the library; other faults are the reader's to tell.

    Args:
        needs_texts: refuse a file with a text that cannot be read, too: reading it may ask for gigabytes of memory.
    Raises:
        Refused: saying what happened.
    """
    status = path.stat()
    answer = _ask(str(path.resolve()), PATIENCE_S, status.st_ino, status.st_size, status.st_mtime_ns)
    if answer == _HANGS:
        raise Refused(f"damaged: the HDF5 library did not get on with it for {PATIENCE_S:.0f} s; fetch it again")
    if answer == _CRASHES:
        raise Refused("damaged: it makes the HDF5 library crash; fetch it again")
    if answer == _HAS_BAD_TEXTS and needs_texts:
        raise Refused("damaged: a text in it cannot be read; fetch it again")


@lru_cache(maxsize=64)
def _ask(path: str, patience_s: float, *version: int) -> bytes:
    """Returns what the other process answers; `version` is what changes when the file does."""
    with _LOCK:
        server = _server(os.getpid())
        if server.stdin is None or server.stdout is None:
            raise OSError("no pipes to the process that looks at HDF5 files")
        server.stdin.write(f"{patience_s} {os.fsencode(path).hex()}\n".encode())
        server.stdin.flush()
        return server.stdout.readline()


@lru_cache(maxsize=1)
def _server(pid: int) -> subprocess.Popen[bytes]:
    """Starts the process, which ends when its stdin does; a fork of this process starts another."""
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is for the program alone
        start_new_session=True,
    )


def serve() -> None:
    """Answers with one line for each line on stdin: seconds of patience and, in hexadecimal digits, the path."""
    for line in sys.stdin.buffer:
        patience_s, path = line.decode("ascii").split()
        sys.stdout.buffer.write(_look(bytes.fromhex(path), float(patience_s)))
        sys.stdout.buffer.flush()


def _look(path: bytes, patience_s: float) -> bytes:
    """Walks over a file in a child process and returns how that ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        has_bad_texts = False
        try:
            has_bad_texts = _walk(path, writer)
        finally:
            # an error of the library is one for the reader, too, who tells it
            os._exit(1 if has_bad_texts else 0)
    os.close(writer)
    is_stuck = False
    while not is_stuck:
        ready, _, _ = select.select([reader], [], [], patience_s)
        is_stuck = not ready
        # the pipe ends with the child
        if ready and not os.read(reader, 4096):
            break
    os.close(reader)
    if is_stuck:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if is_stuck:
        return _HANGS
    if os.WIFSIGNALED(status):
        return _CRASHES
    return _HAS_BAD_TEXTS if os.WEXITSTATUS(status) else _WALKED


def _walk(path: bytes, writer: int) -> bool:
    """Touches what a reader touches, and writes a byte for every object; returns whether a text cannot be read."""
    with h5py.File(os.fsdecode(path), "r") as file:
        has_bad_texts = not _has_readable_attributes(file)
        waiting: list[h5py.Group] = [file]
        seen: set[int] = set()
        while waiting:
            group = waiting.pop()
            for name in group:
                os.write(writer, b".")
                try:
                    if isinstance(group.get(name, getlink=True), h5py.HardLink):
                        item = group[name]
                        address = h5py.h5o.get_info(item.id).addr
                        if address not in seen:
                            seen.add(address)
                            has_bad_texts |= not _touch(item, waiting)
                except (KeyError, ValueError, TypeError, RuntimeError, OSError):
                    # the next object may still be one that hangs
                    continue
    return has_bad_texts


def _has_readable_attributes(item: h5py.Group | h5py.Dataset | h5py.Datatype) -> bool:
    """Returns whether each attribute of an object can be read; one that cannot must not end the look at the rest."""
    try:
        for name in item.attrs:
            item.attrs[name]
    except (KeyError, ValueError, TypeError, RuntimeError, OSError, MemoryError):
        return False
    return True


def _touch(item: h5py.Group | h5py.Dataset | h5py.Datatype, waiting: list[h5py.Group]) -> bool:
    """Returns False for texts that cannot be read."""
    # for what hangs or crashes; one that cannot be read is no matter of the whole file
    _has_readable_attributes(item)
    if isinstance(item, h5py.Group):
        waiting.append(item)
    elif isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
        item.id.get_storage_size()
        if item.chunks:
            item.id.get_num_chunks()
        if h5py.check_string_dtype(item.dtype) is not None and item.size is not None and item.size < _MOST_TEXTS:
            try:
                item[()]
            except (ValueError, RuntimeError, OSError, MemoryError):
                return False
    return True
