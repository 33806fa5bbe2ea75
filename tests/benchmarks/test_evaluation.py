"""Evaluations that are timed: only answers that agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import evaluation
from benchmarks.evaluation import evaluation_table, evaluations
from benchmarks.report import Arguments, Report
from pps_fast.types import Prediction
from tests.support.squeeze import squeeze


class _Measured(Report):
    """A report on a CPU whose rows have their times."""

    def measured(self, **values: Any) -> dict[str, Any]:
        return values


def _rows(tmp_path: Path) -> list[dict[str, Any]]:
    report = _Measured(Arguments(dry_run=True, out=tmp_path), torch.device("cpu"))
    report.begin(1.0)
    evaluations(report)
    return report.rows


def test_eager_and_captured_stand_side_by_side_in_both_precisions(tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    assert [(row["implementation"], row["precision"]) for row in rows[:4]] == [
        (name, precision) for precision in ("bf16", "fp32") for name in ("eager", "captured")
    ]
    assert rows[4]["implementation"] == "published" and {row["status"] for row in rows} == {"ok"}
    for row in rows:
        assert row["eval_samples_per_s"] == pytest.approx(row["pairs"] / row["seconds_evaluation"], rel=1e-2)
    assert "| captured | bf16 | 8 | 24 |" in squeeze(evaluation_table(rows))


def test_answers_that_are_not_equal_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def answer(*inputs: Any, **options: Any) -> Prediction:
        calls.append(inputs)
        value = torch.tensor([float(len(calls))])
        return Prediction(spans=value, nll=value, order=value, votes=value, top1=value)

    monkeypatch.setattr(evaluation, "predict_samples", answer)
    statuses = {(row["implementation"], row["precision"]): row["status"] for row in _rows(tmp_path)}
    assert statuses["eager", "bf16"] == "ok" and statuses["captured", "bf16"] == "failed"
