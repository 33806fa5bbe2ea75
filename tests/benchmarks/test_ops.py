"""Times of ops: who is timed, who is refused and why, and what a row says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from torch import Tensor

from benchmarks import attention, baselines, ops
from benchmarks.baselines import Implementation, implementations_of
from benchmarks.cases import OpCase, cases_of
from benchmarks.counts import PRODUCTS, Work
from benchmarks.timing import Ceilings
from pps_fast import equations
from pps_fast.ops import ALL_OPS, OPS
from tests.support.squeeze import squeeze

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CEILINGS = Ceilings(1e10, {"fp32": 1e11})
FIELDS = {
    *("op", "case", "dataset", "dtype", "batch_size", "mode", "implementation", "status", "method", "repetitions"),
    *("seconds_median", "seconds_q20", "seconds_q80", "bytes", "flops", "gb_per_s", "tflop_per_s", "share", "bound"),
    *("error", "hardware", "threads", "torch", "triton", "commit", "date", "ceilings", "has_run_tests"),
}


def _case(op: str = "push") -> OpCase:
    return cases_of(("tiny",), ("fp32",), 3)[op][0]


def _attentions(batch_size: int) -> list[OpCase]:
    return [case for op in PRODUCTS for case in cases_of(("tiny",), ("fp32",), batch_size)[op]]


def _measured(monkeypatch: pytest.MonkeyPatch, function: Any) -> list[dict[str, Any]]:
    monkeypatch.setattr(ops, "implementations_of", lambda *_: [Implementation("other", function)])
    return list(ops.measure(_case(), CPU, CEILINGS, ops.Settings(seconds=0.0)))


@pytest.fixture
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is measured, which takes seconds."""
    monkeypatch.setattr(ops, "ceilings", lambda device, dtypes: CEILINGS)


def test_a_run_writes_rows_with_every_field_and_says_who_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known_ceilings: None
) -> None:
    out = tmp_path / "results" / "ops.jsonl"
    options = ["--op", "masked_attention", "--dataset", "tiny", "--device", "cpu", "--no-tests"]
    options += ["--batch-size", "3", "--seconds", "0.001", "--out", str(out)]
    assert ops.main(tyro.cli(ops.Arguments, args=options)) == 0
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    timed_rows = [row for row in rows if row["status"] == "ok"]
    assert all(set(row) == FIELDS for row in timed_rows)
    assert {(row["implementation"], row["mode"]) for row in timed_rows} == {
        (name, mode) for name in ("equation", "sdpa") for mode in ("forward", "backward", "both")
    }
    assert all(row["seconds_q20"] <= row["seconds_median"] <= row["seconds_q80"] for row in timed_rows)
    refused = {row["implementation"]: row["why"] for row in rows if row["status"] == "refused"}
    assert set(refused) == {"triton", "compile", "sdpa_mem_efficient", "flex_attention"}
    assert refused["triton"] == baselines.NO_INTERPRETER
    words = "tiny generator.word_stack.self_attention 1x4x7x4"
    assert f"| masked_attention | {words}, B = 3 | fp32 | both | sdpa |" in squeeze(printed)
    assert f"(masked_attention): **refused**, {baselines.CPU_COMPILER}" in printed


def test_a_wrong_implementation_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(**inputs: Any) -> Tensor:
        return equations.push(**inputs) * 1.001

    def wrong_gradient(exponents: Tensor, **inputs: Any) -> Tensor:
        return equations.push(exponents=exponents.detach(), **inputs) + 0 * exponents.sum()

    def not_finite(**inputs: Any) -> Tensor:
        return equations.push(**inputs) * float("nan")

    for wrong in (scaled, wrong_gradient, not_finite):
        (row,) = _measured(monkeypatch, wrong)
        assert row["status"] == "failed" and "seconds_median" not in row, wrong.__name__
        assert row["why"].startswith("differs from the float64 equation by")
    right = _measured(monkeypatch, equations.push)
    assert [row["mode"] for row in right] == ["forward", "backward", "both"]
    assert all(row["error"] < 1e-6 and row["seconds_median"] > 0 for row in right)


def test_what_an_implementation_raises_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**inputs: Any) -> Tensor:
        raise RuntimeError("no kernel image")

    (row,) = _measured(monkeypatch, broken)
    assert (row["status"], row["why"]) == ("failed", "RuntimeError: no kernel image")
    assert "* other, 1 cases (push): **failed**, RuntimeError: no kernel image" in ops.report([row])


def test_an_op_with_red_tests_is_not_measured_and_the_others_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, known_ceilings: None
) -> None:
    monkeypatch.setattr(ops, "run_tests", lambda file: (file != "pull_push", f"1 failed: {file}"))
    about = {"device": "cpu", "dataset": "tiny", "batch_size": 3, "seconds": 0.0, "out": tmp_path / "x.jsonl"}
    assert ops.main(ops.Arguments(**about, op="push")) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(
        "1 failed: pull_push\nerror: tests/ops/test_pull_push.py fails; push: nothing is measured"
    )
    assert ops.main(ops.Arguments(**about, op="boundaries")) == 0
    refused, *others = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert (refused["op"], refused["status"], refused["why"]) == (
        "push",
        "refused",
        "tests/ops/test_pull_push.py fails",
    )
    assert {row["op"] for row in others} == {"boundaries"} and all(row["has_run_tests"] for row in others)


def test_the_tests_that_run_first_are_those_of_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        ran.append(command[-1])
        return subprocess.CompletedProcess(command, 0, "passed", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert ops.red_ops("push") == {}
    assert ran == ["tests/ops/test_pull_push.py"]
    ops.red_ops(None)
    assert len(ran) == 1 + len(OPS) and all((ROOT / path).is_file() for path in ran)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_attentions_of_torch_are_given_the_same_problem(batch_size: int) -> None:
    for case in _attentions(batch_size):
        op = next(op for op in ALL_OPS if op.name == case.op)
        inputs = case.inputs("cpu", requires_grad=True)
        (sdpa,) = [other for other in implementations_of(op, inputs, False) if other.name == "sdpa"]
        assert ops.error_of(sdpa, inputs, ops.exact_of(case, inputs)) < 1e-5, case.name


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_given_the_same_problem() -> None:
    functions = attention.flex_functions()
    for case in _attentions(3):
        # uncompiled, which is slow and says so; without a backward pass on a CPU
        inputs = case.inputs("cpu")
        got = functions[case.op](**baselines.without_validity(inputs))
        assert torch.allclose(got, getattr(equations, case.op)(**inputs), atol=1e-5), case.name


def test_the_share_is_of_the_ceiling_that_bounds_an_op() -> None:
    assert CEILINGS.share(Work(bytes=10**9, flops=10**9), 1.0, "fp32") == (0.1, "memory")
    assert CEILINGS.share(Work(bytes=10**6, flops=10**11), 2.0, "fp32") == (0.5, "compute")


def test_a_trial_keeps_nothing_that_was_measured() -> None:
    (row, *_) = ops.measure(_case(), CPU, CEILINGS, ops.Settings(0.0, implementations=("equation",)))
    kept = ops.without_times({**row, "ceilings": {}})
    assert set(row) - set(kept) == {
        *("seconds_median", "seconds_q20", "seconds_q80", "gb_per_s", "tflop_per_s", "share", "bound", "repetitions")
    }
    assert "| forward | equation | not measured |" in squeeze(ops.report([kept]))
