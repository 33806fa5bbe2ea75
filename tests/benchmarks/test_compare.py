"""The comparison of whole steps runs, counts what it multiplies, and fails where it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import compare


@pytest.mark.parametrize("is_evaluation", [False, True])
def test_every_implementation_has_a_row_and_ours_multiplies_less(
    is_evaluation: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], narrow: Any
) -> None:
    narrow(compare, width=64, num_layers=3)
    out = tmp_path / "rows.jsonl"
    arguments = compare.Arguments(
        batch_size=1, rounds=1, evaluation=is_evaluation, memory=False, least_ratio=1000.0, out=out
    )
    # nothing is a thousand times as fast
    assert compare.main(arguments) == 1
    printed = capsys.readouterr()
    assert "expected 1000.0" in printed.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["implementation"] for row in rows] == list(compare.IMPLEMENTATIONS)
    published, plain, shared = (row["matmul_gflop"] for row in rows)
    assert published > plain > shared > 0.5 * published
    for row in rows:
        assert row["what"] == ("evaluation step" if is_evaluation else "training step")
        assert len(row["seconds"]) == 1 and row["times_published"] > 0 and row["page_faults"] >= 0
        assert f"| {row['implementation']} fp32 " in printed.out
    assert rows[0]["times_published"] == 1


def test_both_precisions_of_the_shared_plan_stand_side_by_side(narrow: Any) -> None:
    narrow(compare, width=32, num_layers=1)
    names = ("published", "shared", "shared_bf16")
    rows = compare.measure(
        compare.Arguments(batch_size=1, rounds=1, evaluation=True, memory=False, implementations=names)
    )
    assert [row["precision"] for row in rows] == ["fp32", "fp32", "bf16"]
    assert "| shared bf16 " in compare.report(rows)
    with pytest.raises(ValueError, match="--implementations shared: expected published first"):
        compare.measure(compare.Arguments(implementations=("shared",)))


@pytest.mark.slow
def test_the_peak_memory_is_that_of_a_process_of_its_own() -> None:
    block = torch.ones(200, 2**20)  # 0.8 GiB that the other process has not
    arguments = compare.Arguments(batch_size=1, evaluation=True)
    assert 0.1 < compare.peak_memory(arguments, "shared") < 0.75
    assert block.sum() == 200 * 2**20
