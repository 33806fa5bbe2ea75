"""The benchmark of fitting an alignment: features that are made when read, and a row for each number of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.alignment_fit import Arguments, RandomFeatures, RandomPairs, main
from pps_fast.alignment.fit import fit_alignment
from pps_fast.config import AlignmentConfig
from tests.support.compare import assert_agree

SMALL = Arguments(num_segments=8, frame_dim=12, pairs_per_video=2.0)


def test_features_are_the_same_at_every_reading_and_others_for_every_video() -> None:
    features = RandomFeatures(20, 8, 12)
    every = features[np.arange(20)]
    assert every.shape == (20, 8, 12) and every.dtype == np.float16
    np.testing.assert_array_equal(features[np.array([7, 3])], every[[7, 3]])
    assert len(np.unique(every.reshape(20, -1), axis=0)) == 20


def test_a_fit_to_features_that_are_made_when_read_is_that_to_an_array() -> None:
    pairs, held = RandomPairs(60, SMALL), RandomPairs(60, SMALL)
    held.features = held.features[np.arange(held.features.shape[0])]
    fits = [fit_alignment(data, np.arange(60), AlignmentConfig()) for data in (pairs, held)]
    assert_agree("maps", fits[0].maps, fits[1].maps)
    assert pairs.features.seconds > 0 and bool(torch.isfinite(fits[0].maps).all())


def test_a_run_writes_a_row_with_seconds_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        sizes = ["--num-segments", "8", "--frame-dim", "12"]
        assert main(["--pairs", "75", *sizes, "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    (path,) = tmp_path.iterdir()
    (row,) = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # 75 pairs of 3.74 a video
    assert (row["pairs"], row["videos"]) == (75, 20)
    assert row["cpu_s"] > 0 and row["peak_mib"] >= row["before_mib"] > 50
    assert row["options"]["num_segments"] == 8 and "75" in capsys.readouterr().out
