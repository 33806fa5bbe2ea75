"""JSON records of a run are read through one check of names, types and ranges."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pps_fast.config import PPSConfig
from pps_fast.runs.records import CONFIG_FILE, Pointer, TraceLine, checked_line, read_config, read_record

POINTER = {"checkpoint": "checkpoints/step_000003", "step": 3, "mIoU": 41.5}
TRACE = {
    "step": 1, "samples": [0, 7], "center": [[0.1], [0.2]], "width": [[0.1], [0.2]], "importance": [[1.0], [1.0]],
    "start": [[0.0, 0.1], [0.0, 0.2]], "end": [[1.0, 0.5], [1.0, 0.5]], "nll": [[2.0, 2.1], [2, 3]],
}  # fmt: skip


def test_a_record_comes_back(tmp_path):
    (tmp_path / "best.json").write_text(json.dumps(POINTER))
    assert read_record(Pointer, tmp_path / "best.json") == Pointer(**POINTER)
    (tmp_path / CONFIG_FILE).write_text('{"train": {"epochs": 3}, "reconstructor": {"plan": "plain"}}')
    config = read_config(tmp_path)
    assert config.train.epochs == 3 and config.reconstructor.schedule == "plain" and isinstance(config, PPSConfig)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "../../elsewhere"}, "checkpoint = '../../elsewhere': expected checkpoints/step_"),
        ({"checkpoint": "/etc"}, "checkpoint = '/etc': expected checkpoints/step_"),
        ({"checkpoint": 3}, "the record.checkpoint = 3: expected str"),
        ({"step": -1}, "step = -1: expected a count, 0 or more"),
        ({"step": True}, "the record.step = True: expected int"),
        ({"step": 10**30}, "step = 10{30}: expected a count"),
        ({"mIoU": float("nan")}, "mIoU = nan: expected a finite number"),
        ({"mIoU": "high"}, "mIoU = 'high': expected float or NoneType"),
        ({"later": 1}, "the record has no field later; it was written by another version"),
    ],
)
def test_what_no_run_has_written_is_refused_by_file_and_field(changes, message, tmp_path):
    (tmp_path / "best.json").write_text(json.dumps({**POINTER, **changes}))
    with pytest.raises(ValueError, match=f"best.json: .*{message}"):
        read_record(Pointer, tmp_path / "best.json")


def test_a_missing_field_is_named(tmp_path):
    (tmp_path / "best.json").write_text('{"step": 3}')
    with pytest.raises(ValueError, match=r"best.json: the field checkpoint is missing in the record"):
        read_record(Pointer, tmp_path / "best.json")


def test_a_line_of_a_trace_is_a_table_of_its_samples():
    assert checked_line({**TRACE, "later": 1}, TraceLine, "line 1")["samples"] == [0, 7]
    changes: list[dict[str, Any]] = [
        {"samples": [0]}, {"samples": [0, -1]}, {"center": [[0.1], [0.1, 0.2]]}, {"nll": [[1.0], [1.0]]},
        {"width": [["x"], [0.2]]}, {"width": 3}, {"start": [[0.0, float("inf")], [0.0, 0.2]]}, {"samples": None},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ValueError, match=r"line 4: .*copy the file again"):
            checked_line({**TRACE, **change}, TraceLine, "line 4")
