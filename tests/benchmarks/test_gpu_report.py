"""The GPU report goes through every stage without a GPU, and sees what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from benchmarks import gpu_report, parity
from benchmarks.counts import MODES, PRODUCTS
from benchmarks.report import Report, StageName
from benchmarks.timing import ceilings
from benchmarks.whole_steps import STEPS
from pps_fast import equations
from pps_fast.ops import ALL_OPS
from pps_fast.ops.dispatch import Op
from pps_fast.ops.pull_push import push
from tests.support.cases import CASES
from tests.support.squeeze import squeeze

ROOT = Path(__file__).parents[2]
MASK_RESULTS = {"value 0", "value 1", "gradient of center", "gradient of width"}
SCRIPT = [sys.executable, "-m", "benchmarks.gpu_report"]


def _rows(out: Path) -> list[dict[str, Any]]:
    (path,) = out.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


# torch.compile, on a CPU
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_a_dry_run_goes_through_every_stage_and_says_that_nothing_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_report.main(gpu_report.Arguments(dry_run=True, out=tmp_path)) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.startswith(gpu_report.NOTHING_MEASURED)
    rows = _rows(tmp_path)
    stages = list(dict.fromkeys(row["stage"] for row in rows if row["stage"] != "budget"))
    assert stages == ["environment", *gpu_report.STAGES] == ["environment", *get_args(StageName)]
    assert [row["what"] for row in rows if row["stage"] == "budget"] == list(gpu_report.STAGES)
    assert all(row["dry_run"] for row in rows)
    measured = ("seconds", "share", "ceilings", "host_seconds", "wall_seconds", "train_samples", "eval_samples")
    assert not any(name.startswith(measured) for row in rows for name in row)
    _check_parity_and_kernels(rows)
    _check_steps(rows)
    _check_trainings(rows)
    (table,) = tmp_path.glob("*.md")
    assert gpu_report.NOTHING_MEASURED in table.read_text()
    assert "| not measured |" in squeeze(table.read_text())
    for title in gpu_report.TABLES:
        assert f"## {title}" in table.read_text()


def _check_parity_and_kernels(rows: list[dict[str, Any]]) -> None:
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
    assert {(row["op"], row["mode"]) for row in timed if row["implementation"] == "equation"} == {
        (op.name, mode) for op in ALL_OPS for mode in MODES
    }
    assert {row["status"] for row in timed if row["implementation"] == "triton"} == {"refused"}


def _check_steps(rows: list[dict[str, Any]]) -> None:
    steps = [row for row in rows if row["stage"] == "steps"]
    assert [row["implementation"] for row in steps if row["precision"] == "fp32"] == [each.name for each in STEPS]
    assert {row["status"] for row in steps} == {"ok"} and {row["precision"] for row in steps} == {"fp32", "bf16"}
    for row in (row for row in steps if row["precision"] == "fp32"):
        # both losses, before and after an update, are those of the reference; dropout makes the two references
        assert row["losses"] == pytest.approx(row["reference"], rel=1e-4), row["implementation"]
    assert len({tuple(row["reference"]) for row in steps}) == 2
    assert all(row["operators"] > 1000 for row in steps if row["precision"] == "bf16")
    compiled = {row["implementation"]: row["status"] for row in rows if row["stage"] == "compiled"}
    assert compiled == {"compile_default": "ok", "flex_eager": "refused"}


def _check_trainings(rows: list[dict[str, Any]]) -> None:
    trained = [row for row in rows if row["stage"] == "training" and row["what"] == "training"]
    assert {row["precision"]: row["epochs_measured"] for row in trained} == {"bf16": 2, "tf32": 2, "fp32": 2}
    evaluated = [row for row in rows if row["stage"] == "evaluation"]
    names = [(row["implementation"], row["precision"], row["status"]) for row in evaluated]
    ours = [(name, precision, "ok") for precision in ("bf16", "fp32") for name in ("eager", "captured")]
    assert names == [*ours, ("published", "fp32", "ok")]
    published, fp32, bf16 = (row for row in rows if row["stage"] == "curves")
    assert published["implementation"] == "published" and len(published["losses"]) == fp32["steps"] == 3
    assert fp32["precision"] == "fp32" and fp32["largest_difference"] < 1e-4
    assert bf16["precision"] == "bf16" and 1e-5 < bf16["largest_difference"] < 0.5
    assert set(fp32["metric_differences"]) == set(published["metrics"]) and fp32["metric_differences"]["R@1 mIoU"] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.main(gpu_report.Arguments(out=tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: torch finds no CUDA device") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_spent_budget_is_said_and_is_no_success(tmp_path: Path) -> None:
    command = [*SCRIPT, "--dry-run", "--budget", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith(gpu_report.NOTHING_MEASURED)
    rows = _rows(tmp_path)
    others = [row for row in rows if row["stage"] not in ("environment", "budget")]
    assert {row["status"] for row in others} <= {"absent", "not run", "left out"}
    # what is this project's own has to run, others' steps need not
    steps = {row["implementation"]: row["status"] for row in rows if row["stage"] == "steps"}
    assert steps["ours_captured"] == steps["ours_eager"] == "not run" and steps["published"] == "left out"
    (table,) = tmp_path.glob("*.md")
    assert "* pytest : **not run**, the budget is spent" in table.read_text().replace("pytest  ", "pytest ")


def _mask_op(triton: Any) -> Op:
    return Op("gaussian_mask", torch=equations.gaussian_mask, triton=triton, unsupported=lambda **_: [])


def _check(triton: Any, dtype: torch.dtype = torch.float32) -> tuple[str, dict[str, Any]]:
    case = CASES["gaussian_mask"][1]
    return parity.check_parity(_mask_op(triton), "gaussian_mask", case, dtype, torch.device("cpu"))


@pytest.mark.parametrize("dtype", parity.DTYPES.values())
def test_a_right_kernel_agrees(dtype: torch.dtype) -> None:
    status, figures = _check(equations.gaussian_mask, dtype)
    assert status == "ok" and set(figures["errors"]) == MASK_RESULTS
    assert all(0 <= error < 0.02 for error in figures["errors"].values())


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
        status, figures = _check(wrong)
        assert status == "failed" and words in figures["why"], wrong.__name__


def test_what_a_kernel_raises_is_a_row_and_the_others_are_still_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**inputs: Any) -> Tensor:
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(parity, "OPS", {"gaussian_mask": (_mask_op(broken),)})
    monkeypatch.setattr(parity, "ALL_OPS", (_mask_op(broken),))
    report = Report(gpu_report.Arguments(dry_run=True, out=tmp_path), torch.device("cpu"))
    parity.parity(report)
    assert [row["dtype"] for row in report.rows] == list(parity.DTYPES)
    assert {row["why"] for row in report.rows} == {"RuntimeError: out of resource: shared memory"}
    assert {row["status"] for row in _rows(tmp_path)} == {"failed"}
    assert "| gaussian_mask | fp32 | 0 | 1 | 0 |" in squeeze(gpu_report.markdown(report, gpu_report.TABLES))


def test_tf32_has_a_cap_of_its_own() -> None:
    def rounded(**inputs: Any) -> tuple[Tensor, Tensor]:
        mask, log = equations.gaussian_mask(**inputs)
        return mask * 1.001, log

    case, cpu = CASES["gaussian_mask"][1], torch.device("cpu")
    arguments = (_mask_op(rounded), "gaussian_mask", case, torch.float32, cpu)
    assert parity.check_parity(*arguments)[0] == "failed"
    assert parity.check_parity(*arguments, parity.TF32_CAP)[0] == "ok"
    status, figures = parity.check_parity(*arguments, 1e-4)
    assert status == "failed" and "value 0: gaussian_mask: error 1.000e-03 > cap 1e-04" in figures["why"]


def _report(tmp_path: Path, budget: float = 460.0) -> Report:
    report = Report(gpu_report.Arguments(dry_run=True, out=tmp_path, budget=budget), torch.device("cpu"))
    report.ceilings = ceilings(report.device, ("fp32", "bf16"), is_small=True)
    return report


def test_a_stage_that_breaks_or_takes_too_long_is_a_row_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(report: Report) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    def endless(report: Report) -> None:
        while True:
            time.sleep(0.01)

    def last(report: Report) -> None:
        report.add("curves", "ok")

    monkeypatch.setattr(gpu_report, "GRACE", 0.0)
    monkeypatch.setattr(gpu_report, "environment", lambda report: None)
    stages = {"steps": (broken, 1.0), "training": (endless, 1.0), "kernels": (endless, 1.0), "curves": (last, 1e4)}
    monkeypatch.setattr(gpu_report, "STAGES", stages)
    report = _report(tmp_path, budget=1000.0)
    gpu_report.run_stages(report, ("curves", "kernels", "training", "steps"))
    stages = {row["stage"]: (row["status"], row.get("why", "")) for row in report.rows if row["stage"] != "budget"}
    assert stages["steps"] == ("failed", "RuntimeError: CUDA error: unspecified launch failure")
    assert stages["training"][0] == "not run" and "interrupted: not finished within" in stages["training"][1]
    assert stages["kernels"][0] == "left out" and stages["curves"][0] == "ok"
    assert not report.is_complete()


def test_a_stage_may_use_what_the_ones_before_it_left(tmp_path: Path) -> None:
    report = _report(tmp_path, budget=100.0)
    report.begin(0.25)
    assert 24 < report.left() <= 25
    report.begin(1.0)
    assert 99 < report.left() <= 100


def test_a_kernel_that_failed_its_parity_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "ALL_OPS", (push,))
    report = _report(tmp_path)
    report.add("parity", "failed", op="push", why="value: wrong")
    gpu_report.kernels(report)
    triton = [row for row in report.of("kernels") if row.get("implementation") == "triton"]
    assert [(row["status"], row["why"]) for row in triton] == [("refused", "it failed its parity")]
    assert any(row["implementation"] == "equation" and row["status"] == "ok" for row in report.of("kernels"))
    assert not report.is_complete()


def test_a_budget_spent_in_the_middle_of_the_kernels_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_report, "ALL_OPS", (push,))
    for names, status, is_complete in (("equation and triton", "not run", False), ("sdpa", "left out", True)):
        report = _report(tmp_path / status)
        left = iter([460.0] if status == "not run" else [460.0, 460.0])
        monkeypatch.setattr(report, "left", lambda left=left: next(left, 0.0))
        gpu_report.kernels(report)
        last = report.of("kernels")[-1]
        assert last["status"] == status and f"without 1 of 1 cases of {names}" in last["why"]
        assert report.is_complete() == is_complete
        assert f"* kernels : **{status}**" in gpu_report.markdown(report, gpu_report.TABLES).replace(
            "kernels  ", "kernels "
        )


def test_a_wrong_baseline_makes_no_kernel_wrong(tmp_path: Path) -> None:
    report = _report(tmp_path)
    about = {"op": "push", "case": "x", "dataset": "tiny", "dtype": "fp32", "batch_size": 1, "mode": "all"}
    report.add("kernels", "failed", **about, implementation="compile", why="differs")
    assert report.is_complete() and "compile, 1 cases (push): **failed**, differs" in gpu_report.markdown(
        report, gpu_report.TABLES
    )
    report.add("kernels", "failed", **about, implementation="triton", why="differs")
    assert not report.is_complete()
