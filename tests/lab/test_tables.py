"""The record of a table against figures reckoned by hand from the overlaps in `made`."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pps_fast.ablations import PAPER
from pps_fast.config_tree import override
from pps_fast.lab.tables import REANNOTATED, Table, build_table
from tests.support.lab_results import DESIGN, FULL, result, table

METRIC = "R@1 mIoU"


@pytest.fixture(scope="module")
def record() -> dict:
    return build_table(table(), DESIGN)


def test_means_and_intervals_over_runs(record):
    full, other = record["rows"]
    estimate = full["results"]["all"][METRIC]
    # means 60, 50, 60, 50
    assert estimate["value"] == pytest.approx(55) and estimate["runs"] == 4
    half = 3.182446305 * math.sqrt(100 / 3) / 2
    assert estimate["over_runs"] == pytest.approx([55 - half, 55 + half], abs=1e-6)
    assert other["results"]["all"][METRIC]["value"] == pytest.approx((40 + 40 + 50) / 3)
    assert full["results"]["all"]["R@1 IoU>=0.5"]["value"] == pytest.approx((50 + 100 + 75 + 75) / 4)


def test_differences_pair_seeds_and_folds(record):
    full, other = record["rows"]
    assert full["difference"]["all"] == {}
    estimate = other["difference"]["all"][METRIC]
    # -20, -10, -10 at the three places that both have
    assert estimate["value"] == pytest.approx(-40 / 3) and estimate["runs"] == 3
    half = 4.302652730 * math.sqrt(100 / 3) / math.sqrt(3)
    assert estimate["over_runs"] == pytest.approx([-40 / 3 - half, -40 / 3 + half], abs=1e-6)
    # fold 0: -15 on every sample of both seeds' mean, fold 1: -10
    assert estimate["over_videos"] == pytest.approx([-15, -10], abs=1.3)
    assert other["missing"] == [[2, 1]] and full["missing"] == []


def test_kinds_of_samples_are_reported_apart(record):
    assert record["subsets"] == {
        "all": {"pairs": 8, "videos": 4},
        "single-event": {"pairs": 6, "videos": 4},
        "multi-event": {"pairs": 2, "videos": 2},
    }
    full = record["rows"][0]["results"]
    assert full["multi-event"][METRIC]["value"] == pytest.approx((20 + 50 + 40 + 10) / 4)
    assert full["single-event"][METRIC]["value"] == pytest.approx((220 + 150 + 200 + 190) / 3 / 4)


def test_every_table_has_blind_rows_and_the_control(record):
    blind = record["blind"]["all"]
    assert blind[METRIC]["value"] == pytest.approx(50) and blind[METRIC]["rows"] == ["whole quarter"] * 2
    assert blind[METRIC]["runs"] == 2 and blind[METRIC]["over_runs"] is None, "folds are no runs of what is not trained"
    assert blind["R@3 mIoU"]["value"] == pytest.approx(100) and blind["R@3 mIoU"]["rows"] == ["3 fixed"] * 2
    full = record["rows"][0]
    assert full["against_blind"]["all"][METRIC]["value"] == pytest.approx(5)
    assert full["shuffled"]["all"][METRIC]["value"] == pytest.approx(27.5)
    assert full["against_shuffled"]["all"][METRIC]["value"] == pytest.approx(27.5)
    assert full["against_shuffled"]["all"]["R@3 mIoU"]["value"] == pytest.approx(45)


def test_record_says_where_it_comes_from_and_keeps_published_figures_apart(record):
    assert record["data"]["name"] == "made" and record["data"]["provenance"] == {"name": "made"}
    assert record["made"] == {"commit": ["c0ffee"], "machine": ["a machine"], "device": ["cpu"], "torch": ["2.13.0"]}
    shared = {"device": "cpu", "processor": "a machine", "threads": None, "precision": "fp32", "torch": "2.13.0"}
    assert record["numerics"] == shared
    assert record["protocol"]["seeds"] == [1, 2] and record["protocol"]["folds"] == [0, 1]
    assert record["preset"] == "tiny" and record["overrides"] == {"train.epochs": 3}
    run = record["rows"][0]["runs"][0]
    assert (run["seed"], run["fold"], run["train_s"]) == (1, 0, 30.0)
    assert run["values"]["all"][METRIC] == pytest.approx(60)
    assert record["rows"][0]["paper"] == {METRIC: 37.59} and record["paper_source"] == PAPER
    assert json.loads(json.dumps(record)) == record


def test_the_spread_over_seeds_is_measured_where_there_are_several(record):
    # full model 60, 60 on fold 0 and 50, 50 on fold 1; without pull 40, 50 on fold 0
    spread = record["spread"]["all"][METRIC]
    assert spread == {"value": pytest.approx(math.sqrt(50 / 3)), "degrees": 3}
    rows = [replace(row, runs={(1, 0): row.runs[1, 0]}) for row in table().rows]
    assert build_table(table(rows=rows), DESIGN)["spread"] == dict.fromkeys(record["subsets"], {})


def test_one_run_has_the_interval_over_videos_only():
    rows = [replace(row, runs={(1, 0): row.runs[1, 0]}) for row in table().rows]
    estimate = build_table(table(rows=rows), DESIGN)["rows"][1]["difference"]["all"][METRIC]
    assert estimate["over_runs"] is None and estimate["runs"] == 1
    assert estimate["over_videos"] == pytest.approx([-20, -20])


def test_rows_of_other_k_and_thresholds_have_their_own_columns():
    base = table()
    config = override(FULL, {"proposals.num_proposals": 1, "inference.iou_thresholds": (0.1,)})
    row = replace(base.rows[1], config=config, runs={(1, 0): result((1, 0), [0.2] * 4, config)})
    record = build_table(table(rows=[base.rows[0], row]), DESIGN)
    assert list(record["rows"][1]["difference"]["all"]) == [METRIC, "R@3 mIoU"]
    assert "R@1 IoU>=0.1" in record["blind"]["all"] and "R@1 IoU>=0.5" in record["blind"]["all"]


def test_people_stand_beside_the_models_on_the_pairs_they_answered():
    people = {("v0", "a then b"): torch.tensor([[0.0, 0.5]] * 4 + [[0.0, 0.25]], dtype=torch.float64)}
    record = build_table(table(), DESIGN, people)
    assert record["subsets"][REANNOTATED] == {"pairs": 2, "videos": 2}
    assert record["human"]["one person"][METRIC]["value"] == pytest.approx(90)
    assert record["human"]["best of five people"]["R@5 mIoU"]["value"] == pytest.approx(100)
    assert record["rows"][0]["results"][REANNOTATED][METRIC]["value"] == pytest.approx(30)
    none = build_table(table(), DESIGN, {("v9", "x"): next(iter(people.values()))})
    assert none["human"] == {} and none["subsets"][REANNOTATED] == {"pairs": 0, "videos": 0}


def test_runs_on_other_samples_are_not_put_together():
    base: Table = table()
    odd = result((2, 0), [0.5] * 4, sample=np.arange(4) + 90)
    rows = [base.rows[0], replace(base.rows[1], runs={(2, 0): odd})]
    with pytest.raises(ValueError, match="different samples"):
        build_table(table(rows=rows), DESIGN)


def test_table_without_runs_is_refused():
    rows = [replace(row, runs={}) for row in table().rows]
    with pytest.raises(ValueError, match="table5: none of its runs is finished"):
        build_table(table(rows=rows), DESIGN)
