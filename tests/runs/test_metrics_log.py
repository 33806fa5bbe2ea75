"""metrics.jsonl: no line twice, none half-written, TensorBoard only where it is installed."""

from __future__ import annotations

import json
import sys

import pytest

from pps_fast.runs.json_lines import read_lines
from pps_fast.runs.metrics_log import METRICS_FILE, MetricsLog, read_metrics, require_tensorboard

LINE = {"step": 1, "epoch": 1, "lr": 0.1, "loss": 2.0, "terms": {"pull": 0.5}, "grad_norm": 1.0, "seconds": 3.0}
GAIN = {"step": 1, "epoch": 1, "split": "train", "num_pairs": 64, "video_gain": {"nats": 0.1, "nats_error": 0.01}}
VALIDATION = {"step": 1, "epoch": 1, "validation": {"mIoU": 30.0}}


def test_lines_are_on_the_disk_at_once_and_appended(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(LINE)
        assert read_metrics(tmp_path) == [LINE]
        log.write({**LINE, "step": 2})
        log.write({**GAIN, "step": 2})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 2]
    assert read_metrics(tmp_path)[-1]["video_gain"] == GAIN["video_gain"]


def test_resumed_log_drops_later_lines_and_a_torn_one(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "validation": {}}\n{"step": 3}\n{"ste')
    with MetricsLog(tmp_path, step=2) as log:
        log.write({"step": 3, "loss": 1.0})
    assert read_lines(tmp_path / METRICS_FILE) == [
        {"step": 1},
        {"step": 2},
        {"step": 2, "validation": {}},
        {"step": 3, "loss": 1.0},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**LINE, "loss": "2"}, "metrics.jsonl: line 2: the line.loss = '2': expected float"),
        ({**LINE, "terms": {"pull": float("nan")}}, "line 2: a value = nan: expected a finite number"),
        ({**LINE, "terms": []}, "line 2: the line.terms = \\[\\]: expected an object"),
        ({**GAIN, "video_gain": {"other": 1.0}}, "line 2: video_gain = .*: expected nats or reward"),
        ({**GAIN, "video_gain": {"nats": float("inf")}}, "line 2: a value = inf: expected a finite number"),
        ({**GAIN, "num_pairs": -1}, "line 2: num_pairs = -1: expected a count"),
        ({"step": 2}, "line 2: the field epoch is missing"),
        ({**VALIDATION, "validation": {}}, "line 2: validation = {}: expected metrics with mIoU"),
        ({"epoch": 2}, "line 2 is no object with a step"),
    ],
)
def test_a_line_that_no_run_has_written_is_refused_by_file_line_and_field(line, message, tmp_path):
    (tmp_path / METRICS_FILE).write_text(json.dumps(VALIDATION) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path)


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    (tmp_path / METRICS_FILE).write_text(json.dumps(LINE) + '\n{"step": 2, "ep')
    assert read_metrics(tmp_path) == [LINE]


def test_missing_tensorboard_is_refused_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match=r"train.tensorboard = True: .*pip install 'pps_fast\[track\]'"):
        require_tensorboard()


def test_tensorboard_gets_every_number_by_a_path_like_name(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append("closed")

    monkeypatch.setattr("pps_fast.runs.metrics_log.require_tensorboard", lambda: Writer)
    with MetricsLog(tmp_path, step=4, tensorboard=True) as log:
        log.write({"step": 5, "epoch": 1, "loss": 2.0, "terms": {"pull": 0.5}})
        log.write({**GAIN, "step": 5})
    assert written == [
        (str(tmp_path / "tensorboard"), 5), ("loss", 2.0, 5), ("terms/pull", 0.5, 5),
        ("video_gain/nats", 0.1, 5), ("video_gain/nats_error", 0.01, 5), "closed",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_writes_an_event_file(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the track extra")
    with MetricsLog(tmp_path, tensorboard=True) as log:
        log.write({"step": 1, "loss": 2.0})
    events = list((tmp_path / "tensorboard").iterdir())
    assert len(events) == 1 and events[0].stat().st_size > 0
