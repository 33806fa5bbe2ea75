"""Small files are replaced whole or not at all."""

from __future__ import annotations

import os

import pytest

from pps_fast.files import flush, read_json, replace_bytes, replace_text, replacing, write_json


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
        (b"{", "damaged, not JSON"),
        (b"\xff\xfe", "damaged, not JSON"),
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
