"""Results of runs that never were, with overlaps that can be reckoned in the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pps_fast.config_tree import override
from pps_fast.eval.metrics import SampleTable
from pps_fast.lab.experiment import Design
from pps_fast.lab.results import FinishedRun
from pps_fast.lab.statistics import SeedFold
from pps_fast.lab.tables import Table, TableRow
from tests.support.lab_experiments import CONFIG

# four samples of two videos; the truth is the first half, and the blind baseline says the first quarter: overlap 0.5
KINDS = np.array(["single-event", "multi-event", "single-event", "single-event"])
SENTENCES = np.array(["a", "a then b", "b", "c"])
FULL, OTHER = override(CONFIG, {}), override(CONFIG, {"losses.pull": 0.0})


def result(seed_fold: SeedFold, top1: list[float], config=FULL, **changes: Any) -> FinishedRun:
    """Returns a run with these overlaps of the answer; R@3 is perfect, shuffled queries get half."""
    seed, fold = seed_fold
    first = 10 * (fold or 0)
    overlap = torch.tensor(top1, dtype=torch.float64)
    values = {
        "name": f"run{seed}_{fold}",
        "config": override(config, {"train.seed": seed, "data.fold": fold}),
        "record": {
            "data": {"name": "made", "sha256": "ab" * 32, "protocol": "as_is"},
            "commit": "c0ffee",
            "machine": "a machine",
            "device": "cpu",
            "torch": "2.13.0",
            "updates": 5,
            "train_s": 30.0,
        },
        "provenance": {"name": "made"},
        "sample": np.arange(4) + first,
        "video": torch.tensor([0, 0, 1, 1]) + first,
        "video_id": np.array(["v0", "v0", "v1", "v1"]),
        "sentence": SENTENCES,
        "kind": KINDS,
        "moment": torch.tensor([[0.0, 0.5]] * 4, dtype=torch.float64),
        "model": SampleTable(iou_top1=overlap, iou_topn=torch.ones(4, dtype=torch.float64), num_ranked=3),
        "shuffled": SampleTable(iou_top1=overlap / 2, iou_topn=overlap, num_ranked=3),
        "intervals": {
            "whole quarter": torch.tensor([[0.0, 0.25]], dtype=torch.float64),
            "last quarter": torch.tensor([[0.75, 1.0]], dtype=torch.float64),
            "3 fixed": torch.tensor([[0.0, 0.5], [0.5, 1.0], [0.0, 1.0]], dtype=torch.float64),
        },
    }
    return FinishedRun(**{**values, **changes})


DESIGN = Design(seeds=(1, 2), folds=(0, 1))
# the other row lacks seed 2 on fold 1
ROWS = {
    "full model": {
        (1, 0): [1.0, 0.2, 0.8, 0.4],
        (1, 1): [0.5, 0.5, 0.5, 0.5],
        (2, 0): [0.8, 0.4, 0.6, 0.6],
        (2, 1): [0.9, 0.1, 0.5, 0.5],
    },
    "without pull": {
        (1, 0): [0.8, 0.0, 0.6, 0.2],
        (1, 1): [0.4, 0.4, 0.4, 0.4],
        (2, 0): [0.7, 0.3, 0.5, 0.5],
    },
}


def table(**changes: Any) -> Table:
    """Returns the full model and a row that is worse by 20, 10 and 10 points on the places both have."""
    configs = {"full model": FULL, "without pull": OTHER}
    rows = [
        TableRow(
            label=label,
            config=configs[label],
            overrides={} if label == "full model" else {"losses.pull": 0.0},
            paper={"R@1 mIoU": 37.59} if label == "full model" else {},
            runs={seed_fold: result(seed_fold, top1, configs[label]) for seed_fold, top1 in runs.items()},
        )
        for label, runs in ROWS.items()
    ]
    values = {
        "name": "table5",
        "title": "losses",
        "note": "A note.",
        "preset": "tiny",
        "overrides": {"train.epochs": 3},
    }
    return Table(**{**values, "rows": rows, "reference": 0, **changes})
