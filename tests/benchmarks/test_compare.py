"""The comparison of whole steps runs, counts what it multiplies, and fails where it is told to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import compare


def test_products_are_counted_as_torch_counts_them_and_inside_a_pass_without_gradients_too() -> None:
    x, weight, square = torch.rand(4, 3, 5), torch.rand(7, 5, requires_grad=True), torch.rand(6, 5, 8)

    def run() -> None:
        y = torch.nn.functional.linear(x, weight)
        with torch.no_grad():
            square.transpose(1, 2) @ square
        y.sum().backward()

    with FlopCounterMode(display=False) as expected:
        run()
    # 12 rows: 2 x 12 x 5 x 7 for the product and as much for the weight's gradient
    assert expected.get_total_flops() == 2 * (2 * 12 * 5 * 7) + 2 * 6 * 8 * 5 * 8
    assert compare.matmul_gflop(run) == expected.get_total_flops() / 1e9


@pytest.mark.parametrize("is_evaluation", [False, True])
def test_every_opponent_has_a_row_and_ours_multiplies_less(
    is_evaluation: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    arguments = compare.Arguments(
        batch_size=1, rounds=1, evaluation=is_evaluation, memory=False, least_ratio=1000.0, out=out
    )
    # nothing is a thousand times as fast
    assert compare.main(arguments) == 1
    printed = capsys.readouterr()
    assert "expected 1000.0" in printed.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["opponent"] for row in rows] == list(compare.OPPONENTS)
    published, plain, shared = (row["matmul_gflop"] for row in rows)
    assert published > plain > shared > 0.5 * published
    for row in rows:
        assert row["what"] == ("evaluation step" if is_evaluation else "training step")
        assert len(row["seconds"]) == 1 and row["times_published"] > 0
        assert f"| {row['opponent']} fp32 |" in printed.out
    assert rows[0]["times_published"] == 1


def test_the_peak_memory_is_that_of_a_process_of_its_own() -> None:
    block = torch.ones(200, 2**20)  # 0.8 GiB that the other process has not
    arguments = compare.Arguments(batch_size=1, evaluation=True)
    assert 0.1 < compare.peak_memory(arguments, "shared") < 0.75
    assert block.sum() == 200 * 2**20
