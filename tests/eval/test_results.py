"""Verdicts and the JSON form of a report."""

from __future__ import annotations

import json
from dataclasses import replace

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


@pytest.mark.parametrize(
    ("blind", "shuffled", "sentence"),
    [
        ((3, 2, 4), (9, 8, 10), "This model finds moments better than chance, in points of mIoU by 3.00 [2.00, 4.00]"),
        ((3, 2, 4), (1, -1, 2), "It is not shown that this model finds moments better than chance: it is better by"),
        ((1, -1, 2), (9, 8, 10), "It is not shown that this model finds moments better than chance: it is not disting"),
        ((-3, -4, -2), (9, 8, 10), "This model does not find moments better than chance: it is worse by 3.00"),
    ],
)
def test_the_verdict_takes_both_kinds_of_chance_and_their_intervals(report, blind, shuffled, sentence: str) -> None:
    def against(values: tuple[float, float, float]) -> dict[str, Comparison]:
        value, low, high = values
        return {HEADLINE: Comparison(row="whole video", difference=Estimate(value=value, low=low, high=high))}

    judged = replace(report, best_blind=against(blind), control=against(shuffled))
    assert judged.verdict.startswith(sentence) and judged.to_dict()["verdict"] == judged.verdict
    assert replace(report, best_blind={}, control={}).verdict is None
