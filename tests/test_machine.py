"""Free memory and disk space are known, and what does not fit is refused before it is begun."""

from __future__ import annotations

import resource
import shutil

import pytest

from pps_fast import machine
from pps_fast.files import Note
from pps_fast.machine import free_memory, note_memory, require_memory, require_space, size_text


def test_free_memory_is_plausible_and_bounded_by_the_limit_of_the_process(monkeypatch):
    free = free_memory()
    assert free is not None and 1 << 20 < free < 1 << 50
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 40, 1 << 40))
    monkeypatch.setattr(machine, "_free_of_machine", lambda: 1 << 45)
    bounded = free_memory()
    assert bounded is not None and bounded < 1 << 40


@pytest.mark.parametrize("prefix", ["", "total_"], ids=["version 2", "version 1"])
def test_files_that_a_container_has_read_count_as_free(prefix, tmp_path):
    (tmp_path / "limit").write_text("1000\n")
    (tmp_path / "used").write_text("900\n")
    paths = str(tmp_path / "limit"), str(tmp_path / "used")
    assert machine._free_of_container(*paths) == 100
    lines = ["active_file 1", "inactive_file 2", f"{prefix}active_file 300", f"{prefix}inactive_file 400", "anon 200"]
    (tmp_path / "memory.stat").write_text("\n".join(lines))
    assert machine._free_of_container(*paths) == 800
    (tmp_path / "limit").write_text("max\n")
    assert machine._free_of_container(*paths) is None


def test_what_does_not_fit_is_refused_with_both_sizes(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "free_memory", lambda: 2048)
    require_memory(2048, "this")
    with pytest.raises(ValueError, match=r"^this needs 1\.0 MiB of memory, 2\.0 KiB are free; use a larger machine$"):
        require_memory(1 << 20, "this")
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    require_memory(1 << 60, "this")
    usage = shutil.disk_usage(tmp_path)
    require_space(tmp_path / "x", usage.free // 2)
    with pytest.raises(ValueError, match="x: needs .* on the disk, .* are free; make room"):
        require_space(tmp_path / "x", usage.total * 2)
    require_space(tmp_path / "no" / "x", usage.total * 2)


def test_an_estimate_beyond_the_free_memory_is_a_note_of_one_sentence():
    note_memory(2048, 2048, "this")
    note_memory(1 << 60, None, "this")
    expected = r"^this needs about 1\.0 MiB of memory, 256\.0 KiB are free: the system may stop it; go elsewhere$"
    with pytest.warns(Note, match=expected):
        note_memory(1 << 20, 1 << 18, "this", "go elsewhere")
    with pytest.raises(ValueError, match=r"^this needs about 1\.0 MiB of memory, 2\.0 KiB are free; go elsewhere$"):
        note_memory(1 << 20, 2048, "this", "go elsewhere")


@pytest.mark.parametrize(
    "number, text", [(3, "3 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 60, "5,242,880 TiB")]
)
def test_sizes_are_told_in_the_unit_that_fits(number, text):
    assert size_text(number) == text
