"""Every failure of reading becomes one sentence with its true cause."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from pickle import UnpicklingError

import h5py
import numpy as np
import pytest

from pps_fast.reading import (
    MAX_MESSAGE,
    Refused,
    cause_of,
    cut,
    cut_lines,
    listed,
    one_sentence,
    reading,
    require_file,
    shown,
)


def _system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _error_of(call, *arguments) -> Exception:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing failed")


CAUSES = {
    "missing": (_system(errno.ENOENT), "no such file; check the path"),
    "folder": (_system(errno.EISDIR), "a folder where a file was expected"),
    "permission": (_system(errno.EACCES), "permission denied"),
    "no right": (_system(errno.EPERM), "permission denied"),
    "lock held": (_system(errno.EAGAIN), "open for writing in another process"),
    "no locks": (_system(errno.ENOLCK), "the file system cannot lock it"),
    "open files": (_system(errno.EMFILE), "too many files are open"),
    "memory of the system": (_system(errno.ENOMEM), "not enough memory"),
    "memory": (MemoryError(), "not enough memory"),
    "memory in HDF5": (OSError("Can't read (memory allocation failed for raw data chunk)"), "not enough memory"),
    "disk": (_system(errno.EIO), "the disk reports an error"),
    "stale": (_system(errno.ESTALE), "replaced or removed on the file server"),
    "full": (_system(errno.ENOSPC), "no space is left on the disk"),
    "other number": (_system(errno.EXDEV), "cannot be read (Invalid cross-device link)"),
    "nesting": (RecursionError(), "nested too deeply"),
    "no text": (_error_of(b"\xff".decode, "utf-8"), "not text (byte 0 is not UTF-8)"),
    "json": (_error_of(json.loads, "[1,"), "not complete JSON (line 1, column 4"),
    "filter": (OSError("can't open directory (/usr/lib/plugin). Please verify"), "HDF5 filter that is not installed"),
    "other filter": (OSError("required filter 'x' is not registered"), "HDF5 filter that is not installed"),
    "pickle": (UnpicklingError("\x1b[1mWeights only\x1b[0m\nlong advice"), "could run code"),
    "end": (EOFError(), "truncated"),
    "archive": (zipfile.BadZipFile("File is not a zip file"), "a broken archive"),
    "encrypted": (RuntimeError("File x is encrypted, password required for extraction"), "an encrypted archive"),
    "refused": (Refused("has a reason; do this"), "has a reason; do this"),
    "anything": (SystemError("first line\nsecond line"), "cannot be read (SystemError: first line)"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_failure_is_one_sentence_that_keeps_its_cause(name, tmp_path):
    failure, words = CAUSES[name]
    assert words in cause_of(failure)
    with pytest.raises(ValueError) as caught, reading(tmp_path / "x.h5"):
        raise failure
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'x.h5'}: {cause_of(failure)[:20]}") and "\n" not in text and "\x1b" not in text
    assert caught.value.__cause__ is failure
    is_damage = name in ("json", "pickle", "end", "archive", "anything")
    assert is_damage == any(word in text for word in ("damaged", "truncated"))


def test_a_sentence_of_our_own_passes_as_it_is_and_success_is_silent(tmp_path):
    with pytest.raises(ValueError, match="^x.h5, row 3: is odd; correct it$"), reading(tmp_path / "x.h5"):
        raise ValueError("x.h5, row 3: is odd; correct it")
    with reading(tmp_path / "x.h5"):
        pass


def test_long_messages_and_paths_are_cut_and_interrupts_pass(tmp_path):
    path = tmp_path / ("a" * 3000)
    with pytest.raises(ValueError) as caught, reading(path):
        open(path)
    assert "the path is too long" in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(ValueError) as caught, reading("x"):
        raise ValueError("x: " + "word " * 1000)
    assert len(str(caught.value)) == MAX_MESSAGE
    with pytest.raises(KeyboardInterrupt), reading("x"):
        raise KeyboardInterrupt


def test_a_file_locked_by_another_process_is_not_called_damaged(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones(3)
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'a'); print(1, flush=True); sys.stdin.read()"
    writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        writer.stdout.readline()
        with pytest.raises(ValueError, match="x.h5: open for writing in another process"), reading(path):
            h5py.File(path, "r")
    finally:
        writer.communicate()


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    wrong = {"no": "no such file", ".": "a folder", "pipe": "a pipe or device", "circle": "its links lead in a circle"}
    for name, words in wrong.items():
        with pytest.raises(ValueError, match=words):
            require_file(tmp_path / name)
    (tmp_path / "x").write_text("x")
    assert require_file(str(tmp_path / "x")) == tmp_path / "x"


def test_messages_are_one_printable_line():
    assert one_sentence("a\n b\x1b[31m\ud800é") == "a b\\x1b[31m\\ud800é"
    assert len(one_sentence("y" * 5000)) == MAX_MESSAGE
    assert cut("abcdefghijkl", 11) == "abcd ... kl" and cut("abc", 3) == "abc"
    assert len(shown("z" * 999)) == 240
    assert listed("abc") == "a, b, c" and listed(range(3000), most=2) == "0, 1 and 2,998 more"
    assert listed([]) == ""


def test_a_text_of_many_lines_loses_those_of_its_middle():
    box = ["\u256d" + "\u2500" * 70, *(f"\u2502 line {number}{' ' * 60}\u2502" for number in range(500)), "the end"]
    assert cut_lines("\n".join(box[:60])) == "\n".join(box[:60])
    lines = cut_lines("\n".join(box), 300).split("\n")
    assert lines[:3] == box[:3] and lines[-2:] == box[-2:]
    (number,) = [index for index, line in enumerate(lines) if "more lines" in line]
    assert lines[number].split() == ["...", str(502 - len(lines) + 1), "more", "lines", "..."]
    assert sum(len(line.strip("\u2502\u256d\u2500 ")) for line in lines) <= 300
