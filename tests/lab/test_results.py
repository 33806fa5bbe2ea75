"""What a run has left is read back to the last bit, and damage is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.eval.metrics import metric_means
from pps_fast.lab.results import EVALUATION_FILE, read_run
from pps_fast.lab.runs import RESULT_FILE, SAMPLES_FILE, run_one
from tests.support.lab_experiments import CONFIG

QUICK = override(CONFIG, {"train.max_steps": 1})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    run_one(QUICK, path, "cpu", 1, "c0ffee")
    return path


def test_figures_of_the_evaluation_come_out_again(run):
    result = read_run(run)
    evaluation = json.loads((run / EVALUATION_FILE).read_text())
    assert result.config == QUICK and result.name == "run" and result.fold is None
    tables = {"model": result.model, "model, shuffled queries": result.shuffled}
    for name, table in tables.items():
        expected = {metric: value["value"] for metric, value in evaluation["rows"][name].items()}
        assert metric_means(table, QUICK.inference.iou_thresholds) == expected
    for name, columns in result.blind_values().items():
        for metric, column in columns.items():
            assert column.mean().item() == pytest.approx(evaluation["rows"][name][metric]["value"], rel=1e-12)
    assert set(result.kind) == {"single-event", "multi-event"} and result.moment.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (SAMPLES_FILE, b"PK broken", "samples.npz: missing or damaged"),
        (SAMPLES_FILE, None, "samples.npz: missing or damaged"),
        (EVALUATION_FILE, None, "evaluation_test.json: missing"),
        (RESULT_FILE, b'{"format": "x", "version": 0, "data": {}, "train_s": 1}', "version 0, this pps_fast reads 1"),
    ],
)
def test_damaged_files_are_named(name, content, message, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_run(copy)
