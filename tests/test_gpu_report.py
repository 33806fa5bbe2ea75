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

from benchmarks import gpu_report, parity
from benchmarks.counts import MODES, PRODUCTS
from benchmarks.report import Report
from pps_fast import equations
from pps_fast.backend import Op
from pps_fast.ops import ALL_OPS
from pps_fast.ops.pull_push import push
from tests.cases import CASES

ROOT = Path(__file__).parents[1]
MASK_RESULTS = {"value 0", "value 1", "gradient of center", "gradient of width"}
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
    assert list(dict.fromkeys(row["stage"] for row in rows)) == ["environment", "parity", "kernels", "pytest", "step"]
    assert all(row["dry_run"] for row in rows)
    assert not any("seconds_median" in row for row in rows)
    checked = {row["op"]: row for row in rows if row["stage"] == "parity"}
    assert set(checked) == {op.name for op in ALL_OPS}
    # every op with a kernel was run and agreed in every dtype, the others are said to have none
    assert {row["status"] for row in checked.values()} <= {"ok", "absent"}
    masks = [row for row in rows if row.get("op") == "gaussian_mask"]
    assert [row["dtype"] for row in masks if row["stage"] == "parity"] == list(parity.DTYPES)
    assert all(set(row["errors"]) == MASK_RESULTS for row in masks if row["stage"] == "parity")
    products = {row["op"] for row in rows if row["stage"] == "parity" and row.get("dtype") == "tf32"}
    assert "masked_attention" in products and products <= set(PRODUCTS)
    timed = [row for row in rows if row["stage"] == "kernels"]
    assert {(row["op"], row["mode"]) for row in timed if row["opponent"] == "equation"} == {
        (op.name, mode) for op in ALL_OPS for mode in MODES
    }
    assert {row["status"] for row in timed if row["opponent"] == "triton"} == {"refused"}
    assert not any(name.startswith("seconds") or name in ("share", "ceilings") for row in timed for name in row)
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
    return parity.check_parity(_mask_op(triton), "gaussian_mask", case, dtype, torch.device("cpu"))


@pytest.mark.parametrize("dtype", parity.DTYPES.values())
def test_a_right_kernel_agrees(dtype: torch.dtype) -> None:
    status, found = _check(equations.gaussian_mask, dtype)
    assert status == "ok" and set(found["errors"]) == MASK_RESULTS
    assert all(0 <= error < 0.02 for error in found["errors"].values())


def test_a_wrong_value_gradient_or_unwritten_result_fails() -> None:
    def scaled(**inputs: Any) -> tuple[Tensor, Tensor]:
        mask, log = equations.gaussian_mask(**inputs)
        return mask * 1.01, log

    def scaled_log(**inputs: Any) -> tuple[Tensor, Tensor]:
        mask, log = equations.gaussian_mask(**inputs)
        return mask, log * 1.01

    def without_gradient_of_width(width: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
        mask, log = equations.gaussian_mask(width=width.detach(), **inputs)
        return mask + 0 * width.sum(), log

    def unwritten(**inputs: Any) -> tuple[Tensor, Tensor]:
        mask, log = equations.gaussian_mask(**inputs)
        return mask, log + 0 * torch.empty(log.shape)

    runs = iter(range(10))

    def never_the_same(**inputs: Any) -> tuple[Tensor, Tensor]:
        mask, log = equations.gaussian_mask(**inputs)
        return mask * (1 + 1e-7 * next(runs)), log

    for wrong, words in (
        (scaled, "value 0: gaussian_mask"),
        (scaled_log, "value 1: gaussian_mask"),
        (without_gradient_of_width, "gradient of width: gaussian_mask"),
        (unwritten, "value 1: gaussian_mask: got has"),
        (never_the_same, "two runs differ"),
    ):
        status, found = _check(wrong)
        assert status == "failed" and words in found["why"], wrong.__name__


def test_what_a_kernel_raises_is_a_row_and_the_others_are_still_checked(tmp_path: Path) -> None:
    def broken(**inputs: Any) -> Tensor:
        raise RuntimeError("out of resource: shared memory")

    report = Report(gpu_report.Arguments(dry_run=True, out=tmp_path), torch.device("cpu"))
    case = CASES["gaussian_mask"][1]
    assert parity._parity_case(report, _mask_op(broken), "gaussian_mask", case, "fp32")
    (row,) = _rows(tmp_path)
    assert row["status"] == "failed" and row["why"] == "RuntimeError: out of resource: shared memory"
    assert "| gaussian_mask | fp32 | 0 | 1 | 0 |" in gpu_report.markdown(report)


def test_tf32_has_a_cap_of_its_own() -> None:
    def rounded(**inputs: Any) -> tuple[Tensor, Tensor]:
        mask, log = equations.gaussian_mask(**inputs)
        return mask * 1.001, log

    case, cpu = CASES["gaussian_mask"][1], torch.device("cpu")
    given = (_mask_op(rounded), "gaussian_mask", case, torch.float32, cpu)
    assert parity.check_parity(*given)[0] == "failed"
    assert parity.check_parity(*given, parity.TF32_CAP)[0] == "ok"
    status, found = parity.check_parity(*given, 1e-4)
    assert status == "failed" and "value 0: gaussian_mask: error 1.000e-03 > cap 1e-04" in found["why"]


def _report(tmp_path: Path, budget: float = 460.0) -> Report:
    return Report(gpu_report.Arguments(dry_run=True, out=tmp_path, budget=budget), torch.device("cpu"))


def test_a_kernel_that_failed_its_parity_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "ALL_OPS", (push,))
    report = _report(tmp_path)
    report.add("parity", "failed", op="push", why="value: wrong")
    gpu_report.kernels(report)
    triton = [row for row in report.of("kernels") if row.get("opponent") == "triton"]
    assert [(row["status"], row["why"]) for row in triton] == [("refused", "it failed its parity")]
    assert any(row["opponent"] == "equation" and row["status"] == "ok" for row in report.of("kernels"))
    assert not report.is_complete()


def test_a_budget_spent_in_the_middle_of_the_kernels_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "ALL_OPS", (push,))
    for opponents, status, is_complete in (("equation and triton", "not run", False), ("sdpa", "left out", True)):
        report = _report(tmp_path / status)
        left = iter([460.0] if status == "not run" else [460.0, 460.0])
        monkeypatch.setattr(report, "left", lambda left=left: next(left, 0.0))
        gpu_report.kernels(report)
        last = report.of("kernels")[-1]
        assert last["status"] == status and f"without 1 of 1 cases of {opponents}" in last["why"]
        assert report.is_complete() == is_complete
        assert f"* kernels : **{status}**" in gpu_report.markdown(report).replace("kernels  ", "kernels ")


def test_a_wrong_opponent_makes_no_kernel_wrong(tmp_path: Path) -> None:
    report = _report(tmp_path)
    about = {"op": "push", "case": "x", "dataset": "tiny", "dtype": "fp32", "batch_size": 1, "mode": "all"}
    report.add("kernels", "failed", **about, opponent="compile", why="differs")
    assert report.is_complete() and "compile, 1 cases (push): **failed**, differs" in gpu_report.markdown(report)
    report.add("kernels", "failed", **about, opponent="triton", why="differs")
    assert not report.is_complete()
