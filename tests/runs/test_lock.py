"""A run directory has one owner, which is named; the lock dies with its process."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from pps_fast.files import host_name
from pps_fast.runs import lock as locks
from pps_fast.runs.lock import LOCK_FILE, RunLock, owning

_CONTEXT = multiprocessing.get_context("forkserver")


def _hold(run: str, connection: multiprocessing.connection.Connection) -> None:
    with owning(Path(run)):
        connection.send(os.getpid())
        connection.recv()


class _Holder:
    """A process that holds the lock of a run directory until it is told to end."""

    def __init__(self, run: Path) -> None:
        self.connection, child = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_hold, args=(str(run), child), daemon=True)
        self.process.start()
        self.pid = self.connection.recv()

    def end(self) -> None:
        self.connection.send(None)
        self.process.join(30)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.join(30)


def _write_owner(run: Path, **owner: object) -> None:
    run.mkdir(exist_ok=True)
    (run / LOCK_FILE).write_text(json.dumps({"pid": 1, "host": host_name(), "started": "2026-01-01", **owner}))


def test_second_process_is_told_who_has_the_directory_until_that_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    holder = _Holder(run)
    before = (run / LOCK_FILE).read_bytes()
    with pytest.raises(ValueError, match=f"run: in use by process {holder.pid} on {host_name()}, since 20.*--out"):
        with owning(run):
            pass
    assert (run / LOCK_FILE).read_bytes() == before
    holder.end()
    # a refused or finished owner of an empty directory leaves nothing
    assert holder.process.exitcode == 0 and not run.exists()
    with owning(run):
        assert json.loads((run / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_lock_dies_with_a_killed_process(tmp_path: Path) -> None:
    holder = _Holder(tmp_path)
    holder.kill()
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == holder.pid
    with owning(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\x00\x01"])
def test_content_that_names_nobody_is_taken_over(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with owning(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_owner_on_another_host_is_refused_with_the_way_out(tmp_path: Path) -> None:
    _write_owner(tmp_path, host="node-7", pid=99)
    with pytest.raises(ValueError, match=f"in use by process 99 on node-7, since 2026-01-01; .*{LOCK_FILE}.*delete"):
        with owning(tmp_path):
            pass
    (tmp_path / LOCK_FILE).unlink()
    with owning(tmp_path):
        pass


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_flock")
def test_without_kernel_locks_the_content_decides(tmp_path: Path) -> None:
    _write_owner(tmp_path, pid=os.getppid())
    with pytest.raises(ValueError, match=f"in use by process {os.getppid()}"):
        RunLock(tmp_path).acquire()
    process = _CONTEXT.Process(target=int)
    process.start()
    process.join()
    _write_owner(tmp_path, pid=process.pid)
    with owning(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_blocks_of_one_thread_may_be_nested_and_another_thread_is_refused(tmp_path: Path) -> None:
    errors: list[str] = []

    def use() -> None:
        try:
            with owning(tmp_path):
                pass
        except ValueError as error:
            errors.append(str(error))

    with owning(tmp_path) as outer:
        with owning(tmp_path) as inner:
            assert inner is outer
        assert outer.is_there()
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert outer.is_there()
    assert len(errors) == 1 and f"in use by process {os.getpid()}" in errors[0]


def test_renewed_lock_is_one_of_the_new_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with owning(run) as lock:
        (run / LOCK_FILE).unlink()
        run.rmdir()
        assert not lock.is_there()
        lock.renew()
        assert lock.is_there() and (run / LOCK_FILE).is_file()


def test_file_in_the_place_of_the_directory_and_link_in_the_place_of_the_lock_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ValueError, match="notes: a file"), owning(tmp_path / "notes"):
        pass
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "notes")
    with pytest.raises(OSError), owning(tmp_path):
        pass
    assert (tmp_path / "notes").read_text() == "mine"


def test_lock_is_not_taken_from_a_file_that_was_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = locks._lock, []

    def delete_first(descriptor: int) -> bool | None:
        # another owner releases between this process's opening and locking
        if not calls:
            (tmp_path / LOCK_FILE).unlink()
        calls.append(descriptor)
        return lock(descriptor)

    monkeypatch.setattr(locks, "_lock", delete_first)
    with owning(tmp_path) as held:
        assert held.is_there() and len(calls) == 2
