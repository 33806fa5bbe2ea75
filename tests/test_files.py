"""Small files are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import time

import pytest

from pps_fast.files import (
    FullDiskError,
    flush,
    host_name,
    is_alive,
    is_litter,
    is_temporary,
    read_json,
    replace_bytes,
    replace_text,
    replacing,
    write_json,
)


def test_json_comes_back_as_written(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, 2.5], "b": {"c": None}})
    assert read_json(path, ("a", "b")) == {"a": [1, 2.5], "b": {"c": None}}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_interrupted_replacement_leaves_the_old_file(call, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    replace_text(path, "old")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace_bytes(path, b"new")
    assert path.read_text() == "old"
    # nothing half-written stays behind
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_replacing_takes_a_file_that_others_write_and_keeps_the_old_one_after_an_error(tmp_path):
    path = tmp_path / "a.bin"
    with replacing(path) as temporary:
        temporary.write_bytes(b"first")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"second")
        raise RuntimeError
    assert path.read_bytes() == b"first"
    assert [item.name for item in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not complete JSON"),
        (b"\xff\xfe", "not text"),
        (b"[" * 99_999, "nested too deeply"),
        (b'{"step": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b"[1]", "with step"),
        (b'{"b": 1}', "with step"),
    ],
)
def test_damaged_json_is_refused_by_name(content, message, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json: .*{message}"):
        read_json(tmp_path / "a.json", ("step",))


def test_missing_json_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="gone.json: missing"):
        read_json(tmp_path / "gone.json", ())


def test_flush_takes_files_and_directories_and_refuses_what_is_not_there(tmp_path):
    replace_text(tmp_path / "a.txt", "a")
    flush(tmp_path)
    flush(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        flush(tmp_path / "b.txt")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_told_with_file_and_remedy_and_keeps_the_old_file(number, tmp_path):
    path = tmp_path / "a.bin"
    replace_bytes(path, b"old")
    with pytest.raises(FullDiskError, match=re.escape(f"{path}: not written, because ") + ".*; make room, or write to"):
        with replacing(path) as temporary:
            temporary.write_bytes(b"part")
            raise OSError(number, os.strerror(number))
    assert path.read_bytes() == b"old" and [item.name for item in tmp_path.iterdir()] == ["a.bin"]
    with pytest.raises(PermissionError), replacing(path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_what_is_no_file_is_never_replaced_by_one(tmp_path):
    """For the superuser a rename would put a file in the place of /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(ValueError, match=f"{name}: a folder, pipe or device, not a file to write; name another"):
            replace_text(tmp_path / name, "x")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink() and len(list(tmp_path.iterdir())) == 3


def _dead_pid() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_temporary_files_of_dead_processes_are_deleted_by_the_next_writer_of_that_file(tmp_path):
    dead, host, path = _dead_pid(), host_name(), tmp_path / "a.json"
    assert is_alive(os.getpid()) and is_alive(1) and not is_alive(dead)
    old = [f".tmp-a.json@{host}.{dead}", ".tmp-a.json@other.7", ".tmp-a.json.8"]
    kept = [f".tmp-a.json@{host}.1", ".tmp-a.json@new.9", f".tmp-b.json@{host}.{dead}", ".tmp-a.json", "a.json.7"]
    for name in (*old, *kept):
        (tmp_path / name).write_text("x")
    for name in old[1:]:
        os.utime(tmp_path / name, (time.time() - 2 * 86400,) * 2)
    (tmp_path / f".tmp-a.json@{host}.{dead}0").symlink_to(tmp_path / "a.json.7")
    write_json(path, {})
    assert {item.name for item in tmp_path.iterdir()} == {"a.json", *kept, f".tmp-a.json@{host}.{dead}0"}


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [(".tmp-a.json@host-1.77", True), (".tmp-a.json.77", True), (".tmp-a.json", False), ("a.json.77", False)],
)
def test_temporary_files_are_known_by_their_name(name, is_ours, tmp_path):
    (tmp_path / name).write_text("x")
    assert is_temporary(tmp_path / name) == is_ours
    assert not is_temporary(tmp_path / f"{name}.9")


@pytest.mark.parametrize(("name", "expected"), [(".DS_Store", True), (".nfs00ab", True), (".nfs", False), ("x", False)])
def test_what_a_system_leaves_in_any_folder_is_litter(name, expected, tmp_path):
    assert is_litter(tmp_path / name) == expected
