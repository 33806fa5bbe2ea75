"""python -m pps_fast.align: fits, evaluates and leaves a model, on any prepared data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pps_fast import align
from pps_fast.eval.__main__ import main as evaluate

SMALL = ("--data.planted.num-videos", "30", "--inference.num-bootstrap", "50")


def test_the_command_fits_prints_and_writes_what_eval_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert align.main(["--out", str(out), *SMALL]) == 0
    printed = capsys.readouterr().out
    record = json.loads((out / "evaluation_test.json").read_text(encoding="utf-8"))
    assert {"model", "model, shuffled queries", "alignment, max-sum window", "whole video"} <= record["rows"].keys()
    assert record["config"]["method"] == "alignment" and "model - shuffled queries" in printed
    # said before the fit, which may take a while
    assert printed.startswith("data planted: 30 videos of 32 segments x 32, samples: train 144, ")
    # planted sentences are visible in their moments
    assert record["control"]["R@1 mIoU"]["difference"]["low"] > 0
    assert evaluate(["--model", str(out)]) == 0
    assert json.loads((out / "evaluation_test.json").read_text(encoding="utf-8"))["rows"] == record["rows"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "missing.h5"), "missing.h5"),
        (("--fold", "0"), "the data set has no folds"),
        (("--alignment.sentences", "vectors"), "no sentence vectors"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert align.main(["--out", str(out), *SMALL, *options]) == 2
    assert message in capsys.readouterr().err
