"""The comparison of updates runs from one state, and the two agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import update
from pps_fast.train.optimizer import Adam


def test_both_updates_have_a_row_and_the_flat_one_moves_and_calls_less(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    update.main(update.Arguments(preset="tiny", pairs=2, device="cpu", out=out))
    assert "| flat " in capsys.readouterr().out
    flat, listed = sorted((json.loads(line) for line in out.read_text().splitlines()), key=lambda row: row["update"])
    assert (flat["update"], listed["update"]) == ("flat", "list")
    assert flat["values"] == listed["values"] and flat["bytes"] < listed["bytes"] == 28 * 4 * listed["values"]
    assert flat["operators"] < listed["operators"] / 5
    assert flat["seconds_median"] > 0 and listed["times_list"] == 1


def test_both_start_from_the_same_parameters_and_end_there_too() -> None:
    ours, theirs = update.copies_of("tiny", torch.device("cpu"))
    one, other = Adam(ours, 1e-2), update.ForeachAdam(theirs, 1e-2)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q) and p.data_ptr() != q.data_ptr()
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    norms = one.clip_and_step(1.0, torch.tensor(True)), other.clip_and_step(1.0, torch.tensor(True))
    assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-6)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
