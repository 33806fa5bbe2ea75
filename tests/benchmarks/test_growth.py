"""Exponents of cost, and the rows and files of a small run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import growth
from tests.support.squeeze import squeeze


def test_the_exponent_of_a_power_is_its_own_and_of_a_constant_0() -> None:
    sizes = (4, 8, 16, 64)
    assert growth.exponent(sizes, [3 * size**1.7 for size in sizes]) == pytest.approx(1.7)
    assert growth.exponent(sizes, [5.0] * 4) == pytest.approx(0)
    # a constant part hides a power, which the last two points show better
    costs = [1 + 0.01 * size**2 for size in sizes]
    assert growth.exponent(sizes, costs) < growth.exponent(sizes[-2:], costs[-2:]) < 2


def test_one_size_at_a_time_is_varied() -> None:
    base = growth.BASES["small"]
    for axis, points in growth.points_of(base, tuple(growth.AXES)).items():
        assert [getattr(point, axis) for point in points] == list(growth.AXES[axis])
        for point in points:
            changed = {name for name, value in asdict(point).items() if value != getattr(base, name)}
            assert changed <= {axis}
        # the base is on every axis, and timed once for all
        assert base in points


def test_a_run_leaves_rows_and_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(growth.AXES, "positions", (10, 25, 50))
    arguments = growth.Arguments(base="tiny", axes=("positions",), rounds=2, device="cpu", out=tmp_path)
    assert growth.main(arguments) == 0
    (path,) = tmp_path.glob("growth_cpu_*.jsonl")
    *points, exponents = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["positions"] for row in points] == list(growth.AXES["positions"])
    assert all(len(row["seconds"]) == 2 and row["seconds_median"] > 0 for row in points)
    gflop = [row["matmul_gflop"] for row in points]
    assert gflop == sorted(gflop) and exponents["gflop_local"] > exponents["gflop_fitted"] > 0
    assert {"hardware", "threads", "torch", "commit", "date", "base"} <= exponents.keys()
    text = path.with_suffix(".md").read_text()
    assert text in capsys.readouterr().out
    assert f"| positions | 50 | {points[-1]['components']} |" in squeeze(text)
