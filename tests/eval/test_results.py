"""Verdicts and the JSON form of a report."""

from __future__ import annotations

import json

import pytest

from pps_fast.eval.bootstrap import Estimate
from pps_fast.eval.evaluate import evaluate
from pps_fast.eval.results import HEADLINE, MODEL, Comparison, EvalReport
from tests.support.eval_fakes import CONFIG, SPLITS, KnowsTheQuery, store


@pytest.fixture(scope="module")
def report() -> EvalReport:
    return evaluate(KnowsTheQuery(), store(), SPLITS, CONFIG, progress=False)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (3.1, 2.0, 4.2, "better by 3.10 [2.00, 4.20]"),
        (-3.1, -4.2, -2.0, "worse by 3.10 [2.00, 4.20]"),
        (0.5, -1.0, 2.0, "not distinguishable, difference +0.50 [-1.00, +2.00]"),
        # an interval that ends at 0 does not exclude it
        (0.5, 0.0, 1.0, "not distinguishable, difference +0.50 [+0.00, +1.00]"),
        (0.0, 0.0, 0.0, "not distinguishable, difference +0.00 [+0.00, +0.00]"),
    ],
)
def test_verdict_follows_the_interval(value: float, low: float, high: float, verdict: str) -> None:
    assert Comparison(row="whole video", difference=Estimate(value=value, low=low, high=high)).verdict == verdict


def test_headline_names_best_blind_row_and_both_figures(report: EvalReport) -> None:
    row = report.best_blind[HEADLINE].row
    assert report.headline.startswith(
        f"{HEADLINE}: the best blind baseline is '{row}' ({report.rows[row][HEADLINE].value:.2f})"
    )
    assert f"the model ({report.rows[MODEL][HEADLINE].value:.2f}) is better by " in report.headline


def test_json_form_keeps_every_figure(report: EvalReport) -> None:
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["rows"].keys() == report.rows.keys()
    for row, entry in report.rows.items():
        for metric, estimate in entry.items():
            assert plain["rows"][row][metric] == {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    for metric, entry in report.control.items():
        assert plain["control"][metric]["verdict"] == entry.verdict
    for name in ("name", "protocol", "split", "num_samples", "num_videos", "selector", "seed", "num_bootstrap"):
        assert plain[name] == getattr(report, name)
    assert plain["headline"] == report.headline
