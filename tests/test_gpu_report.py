"""The GPU report goes through every stage without a GPU, and sees what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import gpu_report
from pps_fast import equations
from pps_fast.backend import Op
from pps_fast.ops import ALL_OPS
from tests.cases import CASES

ROOT = Path(__file__).parents[1]
SCRIPT = [sys.executable, "benchmarks/gpu_report.py"]


def _rows(out: Path) -> list[dict[str, Any]]:
    (path,) = out.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dry_run_goes_through_every_stage_and_says_that_nothing_was_measured(tmp_path: Path) -> None:
    command = [*SCRIPT, "--check", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(gpu_report.NOTHING_MEASURED)
    rows = _rows(tmp_path)
    assert list(dict.fromkeys(row["stage"] for row in rows)) == ["environment", "parity", "pytest", "step"]
    assert all(row["dry_run"] for row in rows)
    assert not any("seconds_median" in row for row in rows)
    parity = {row["op"]: row for row in rows if row["stage"] == "parity"}
    assert set(parity) == {op.name for op in ALL_OPS}
    # every op with a kernel was run and agreed in every dtype, the others are said to have none
    assert {row["status"] for row in parity.values()} <= {"ok", "absent"}
    masks = [row for row in rows if row.get("op") == "gaussian_mask"]
    assert [row["dtype"] for row in masks] == list(gpu_report.DTYPES)
    assert all(set(row["errors"]) == {"value", "center", "width"} for row in masks)
    (table,) = tmp_path.glob("*.md")
    assert gpu_report.NOTHING_MEASURED in table.read_text()
    assert "| not measured |" in table.read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.main(gpu_report.Arguments(check=True, out=tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: torch finds no CUDA device") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_spent_budget_is_said_and_is_no_success(tmp_path: Path) -> None:
    assert gpu_report.main(gpu_report.Arguments(check=True, dry_run=True, out=tmp_path, budget=0.0)) == 1
    rows = _rows(tmp_path)
    assert {row["status"] for row in rows if row["stage"] != "environment"} <= {"absent", "not run"}
    (table,) = tmp_path.glob("*.md")
    assert "* pytest : **not run**, the budget is spent" in table.read_text().replace("pytest  ", "pytest ")


def _mask_op(triton: Any) -> Op:
    return Op("gaussian_mask", torch=equations.gaussian_mask, triton=triton, unsupported=lambda **_: [])


def _check(triton: Any, dtype: torch.dtype = torch.float32) -> tuple[str, dict[str, Any]]:
    case = CASES["gaussian_mask"][1]
    return gpu_report.check_parity(_mask_op(triton), "gaussian_mask", case, dtype, torch.device("cpu"))


@pytest.mark.parametrize("dtype", gpu_report.DTYPES.values())
def test_a_right_kernel_agrees(dtype: torch.dtype) -> None:
    status, found = _check(equations.gaussian_mask, dtype)
    assert status == "ok" and set(found["errors"]) == {"value", "center", "width"}


def test_a_wrong_value_gradient_or_unwritten_result_fails() -> None:
    def scaled(**inputs: Any) -> Tensor:
        return equations.gaussian_mask(**inputs) * 1.01

    def without_gradient_of_width(width: Tensor, **inputs: Any) -> Tensor:
        return equations.gaussian_mask(width=width.detach(), **inputs) + 0 * width.sum()

    def unwritten(**inputs: Any) -> Tensor:
        value = equations.gaussian_mask(**inputs)
        return value + 0 * torch.empty(value.shape)

    runs = iter(range(10))

    def never_the_same(**inputs: Any) -> Tensor:
        return equations.gaussian_mask(**inputs) * (1 + 1e-7 * next(runs))

    for wrong, words in (
        (scaled, "value: gaussian_mask"),
        (without_gradient_of_width, "width: gaussian_mask"),
        (unwritten, "NaN"),
        (never_the_same, "two runs differ"),
    ):
        status, found = _check(wrong)
        assert status == "failed" and words in found["why"], wrong.__name__


def test_what_a_kernel_raises_is_a_row_and_the_others_are_still_checked(tmp_path: Path) -> None:
    def broken(**inputs: Any) -> Tensor:
        raise RuntimeError("out of resource: shared memory")

    report = gpu_report.Report(gpu_report.Arguments(dry_run=True, out=tmp_path), torch.device("cpu"))
    case = CASES["gaussian_mask"][1]
    assert gpu_report._parity_case(report, _mask_op(broken), "gaussian_mask", case, "fp32")
    (row,) = _rows(tmp_path)
    assert row["status"] == "failed" and row["why"] == "RuntimeError: out of resource: shared memory"
    assert "| gaussian_mask | fp32 | 0 | 1 | 0 |" in gpu_report.markdown(report)
