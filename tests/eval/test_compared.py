"""Rows of a table against each other: paired differences, the best of several, and rows that lack a metric."""

from __future__ import annotations

import pytest
import torch

from pps_fast.eval.bootstrap import VideoBootstrap
from pps_fast.eval.compared import ComparedRows

VALUES = {
    "model": {"a": torch.tensor([10.0, 20.0, 60.0]), "b": torch.tensor([50.0, 50.0, 80.0])},
    "weak": {"a": torch.tensor([0.0, 10.0, 20.0]), "b": torch.tensor([0.0, 0.0, 0.0])},
    "strong in a alone": {"a": torch.tensor([40.0, 40.0, 40.0])},
}


@pytest.fixture
def compared() -> ComparedRows:
    return ComparedRows(VALUES, "model", VideoBootstrap(torch.arange(3), num_resamples=50, seed=0))


def test_every_row_is_estimated_by_its_mean(compared: ComparedRows) -> None:
    assert {name: {m: e.value for m, e in row.items()} for name, row in compared.rows.items()} == {
        "model": {"a": 30.0, "b": 60.0},
        "weak": {"a": 10.0, "b": 0.0},
        "strong in a alone": {"a": 40.0},
    }


def test_differences_are_paired(compared: ComparedRows) -> None:
    against = compared.against("weak")
    assert {metric: one.difference.value for metric, one in against.items()} == {"a": 20.0, "b": 60.0}
    # of the pairs 10, 10 and 40
    assert against["a"].difference.low >= 10.0


def test_the_best_row_is_chosen_for_each_metric_among_those_that_have_it(compared: ComparedRows) -> None:
    best = compared.against_best(["no row", "weak", "strong in a alone"])
    assert {metric: (one.row, one.difference.value) for metric, one in best.items()} == {
        "a": ("strong in a alone", -10.0),
        "b": ("weak", 60.0),
    }
    assert compared.against_best(["strong in a alone"]).keys() == {"a"}
    assert compared.against_best([]) == {}
