"""The benchmark of answers: what it counts, and a whole run on planted folds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.grounding import main, reliability
from pps_fast.data.prepared import write_prepared
from tests.support.eval_fakes import DATA


def test_reliability_weighs_both_kinds_equally() -> None:
    rows = reliability(torch.tensor([0.95, 0.15]).double(), torch.tensor([0.15, 0.15, 0.15, 0.15]).double())
    assert [row["weight"] for row in rows] == pytest.approx([0.75, 0.25])
    assert [row["share_right"] for row in rows] == pytest.approx([1 / 3, 1.0])
    assert [row["match"] for row in rows] == pytest.approx([0.15, 0.95])


@pytest.mark.filterwarnings("ignore::pps_fast.files.Note")
def test_a_run_writes_a_row_for_each_fold(tmp_path: Path) -> None:
    folded = replace(DATA, fold=DATA.sample_video % 2, split=np.full(DATA.num_samples, "train"))
    write_prepared(tmp_path / "data.h5", folded)
    threads = torch.get_num_threads()
    try:
        assert main(["--data", str(tmp_path / "data.h5"), "--folds", "1", "--out", str(tmp_path / "out.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    (row,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rows"]
    assert row["sentences"] == 120 and row["videos"] == 20 and 0.5 < row["auc"] < 1 and row["ms_one_video"] > 0
