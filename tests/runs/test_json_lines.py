"""Files of JSON lines: on the disk at once, no line twice, none half-written."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator

import pytest

from pps_fast.files import FullDiskError
from pps_fast.runs.json_lines import JsonLines, read_lines


def test_lines_are_on_the_disk_at_once_and_appended(tmp_path):
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.write({"step": 1, "x": [0.5, {"y": None}]})
    assert read_lines(tmp_path / "x.jsonl") == [{"step": 1, "x": [0.5, {"y": None}]}]
    lines.write({"step": 2})
    lines.close()
    assert [line["step"] for line in read_lines(tmp_path / "x.jsonl")] == [1, 2]


@pytest.mark.parametrize(("step", "kept"), [(-1, []), (0, [0]), (2, [0, 2]), (9, [0, 2, 3])])
def test_lines_after_the_step_and_a_torn_one_are_dropped(tmp_path, step, kept):
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 0}\n{"step": 2}\n{"step": 3}\n{"step": 4')
    JsonLines(path, step=step).close()
    assert [line["step"] for line in read_lines(path)] == kept


def test_file_that_was_deleted_while_it_grew_gets_its_lines_again(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = JsonLines(path)
    lines.write({"step": 1})
    lines.rewrite()
    path.unlink()
    lines.write({"step": 2})
    assert not path.exists()
    lines.rewrite()
    lines.write({"step": 3})
    lines.close()
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Lets no file grow beyond 10 kB, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_full_disk_is_named_and_complete_lines_stay(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = JsonLines(path)
    with pytest.raises(FullDiskError, match="x.jsonl: not written, because .*; make room"):
        for step in range(1, 10_000):
            lines.write({"step": step})
    with pytest.raises(FullDiskError):
        lines.close()
    complete = path.read_text().splitlines()[:-1]
    assert [json.loads(line)["step"] for line in complete] == list(range(1, len(complete) + 1))
