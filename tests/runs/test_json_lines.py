"""Files of JSON lines: on the disk at once, no line twice, none half-written."""

from __future__ import annotations

import pytest

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
