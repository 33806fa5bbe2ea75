"""The program that times a training step runs, and writes what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from benchmarks import step
from benchmarks.step import SIZES, random_batch, sizes_of


def test_the_longest_name_decides_the_sizes() -> None:
    assert sizes_of("charades_clip_small") is SIZES["charades_clip"]
    assert sizes_of("charades_released") is SIZES["charades"]
    with pytest.raises(ValueError, match="preset = 'demo': no data set's sizes are known"):
        sizes_of("demo")


def test_random_batches_have_the_sizes_and_lengths_of_the_data_set() -> None:
    sizes, lengths = SIZES["charades"]
    batch = random_batch(sizes, lengths, 200, torch.device("cpu"))
    assert batch.frames.shape == (200, 200, 1024)
    assert lengths[0] <= int(batch.num_words.min()) and int(batch.num_words.max()) <= lengths[-1]
    assert abs(float(batch.num_words.double().mean()) - 7.25) < 0.5
    assert (batch.word_ids > 0).sum(1).equal(batch.num_words)


def test_a_step_is_timed_profiled_and_appended(tmp_path: Path, capsys: pytest.CaptureFixture[str], narrow: Any) -> None:
    narrow(step, width=32, num_layers=1)
    out = tmp_path / "results" / "step.jsonl"
    options = ["--preset", "charades_clip_small", "--batch-size", "2", "--steps", "1", "--device", "cpu"]
    for _ in range(2):
        step.main(tyro.cli(step.Arguments, args=[*options, "--out", str(out)]))
    assert "preset charades_clip_small, batch_size 2" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["preset"] for row in rows] == ["charades_clip_small"] * 2
    assert rows[0]["seconds_median"] > 0 and rows[0]["peak_memory_gib"] > 0
    shares = [value for name, value in rows[0]["profile"].items() if "called" not in name]
    assert sum(shares) == pytest.approx(1, abs=0.01)
