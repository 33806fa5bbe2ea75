"""Steps are compared before they are timed, and what is wrong is not timed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import whole_steps
from benchmarks.report import Arguments, Report
from benchmarks.timing import OutOfTime, ceilings, time_limit, timed_steps
from benchmarks.whole_steps import Setting, Variant
from pps_fast.encoder import transformer
from tests.support.squeeze import squeeze

CPU = torch.device("cpu")


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A dry one."""
    report = Report(Arguments(dry_run=True, out=tmp_path), CPU)
    report.ceilings = ceilings(CPU, ("fp32",), is_small=True)
    return report


@pytest.fixture(scope="module")
def setting() -> Setting:
    """A tiny model."""
    return whole_steps._setting("charades", CPU, True)


def _row(report: Report, setting: Setting, **fields: Any) -> dict[str, Any]:
    whole_steps._add(report, "steps", Variant(**fields), setting, "fp32")
    return report.rows[-1]


def test_the_work_is_that_of_the_least_arithmetic_and_bytes(setting: Setting) -> None:
    assert setting.work.flops > 1e6
    frames = setting.batch.frames
    assert setting.work.bytes > frames.numel() * frames.element_size()


def test_a_wrong_attention_is_refused(report: Report, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(query: Tensor, key: Tensor, value: Tensor, **others: Any) -> Tensor:
        return value.mean(2, keepdim=True).expand_as(query)

    assert _row(report, setting, name="ours_eager")["status"] == "ok"
    monkeypatch.setattr(transformer, "masked_attention", blind)
    row = _row(report, setting, name="ours_eager")
    assert row["status"] == "failed" and row["why"].startswith("Disagrees: losses [")
    assert not report.is_complete()


def test_a_step_that_could_not_be_captured_is_not_timed_as_captured(
    report: Report, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uncaptured(*others: Any) -> Any:
        return lambda: warnings.warn("training steps run eagerly, they could not be captured: no", stacklevel=1)

    monkeypatch.setattr(whole_steps, "runner", uncaptured)
    row = _row(report, setting, name="ours_captured", is_captured=True)
    assert row["status"] == "failed" and "they could not be captured: no" in row["why"]


def test_what_torch_breaks_on_leaves_the_report_complete(
    report: Report, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*others: Any, **more: Any) -> Any:
        raise RuntimeError("no kernel for this mask")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", broken)
    row = _row(report, setting, name="sdpa_eager", attention="sdpa")
    assert (row["status"], row["why"]) == ("failed", "RuntimeError: no kernel for this mask")
    assert report.is_complete()


def test_a_step_ends_with_the_time_of_its_stage(
    report: Report, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.stage_end = report.deadline - report.left() + 0.2

    def endless(*others: Any) -> Any:
        while True:
            torch.ones(10).sum()

    monkeypatch.setattr(whole_steps, "runner", endless)
    row = _row(report, setting, name="compile_default", compile_mode="default")
    assert row["status"] == "left out" and row["why"].startswith("not finished within")


def test_limits_nest() -> None:
    with pytest.raises(OutOfTime, match=r"within 0 s"), time_limit(0.3):
        with time_limit(60.0):
            pass
        while True:
            torch.ones(10).sum()


def test_times_of_a_step_are_those_of_the_clock() -> None:
    calls = []
    row = timed_steps(lambda: calls.append(torch.ones(10**6).sum()), CPU, 0.05)
    assert len(calls) == row["repetitions"] + 4 and 5 <= row["repetitions"] <= 200
    assert 0 < row["seconds_q20"] <= row["seconds_median"] <= row["seconds_q80"]
    assert row["host_seconds"] <= 2 * row["wall_seconds"]
    assert whole_steps.launches_of(lambda: torch.ones(3).add(1), CPU)["operators"] >= 2


def test_the_table_has_ratios_to_the_published_step() -> None:
    row = {"preset": "p", "precision": "fp32", "status": "ok", "host_seconds": 0.001, "share": 0.5, "bound": "compute"}
    times = [(0.02, "published"), (0.005, "ours_captured")]
    rows = [
        {**row, "implementation": name, "kernels": 9, **{f"seconds_{q}": seconds for q in ("median", "q20", "q80")}}
        for seconds, name in times
    ]
    assert "| p | fp32 | ours_captured | 5 (5, 5) | 1 | 4.00 | - | - | 9 | 50 % of compute |" in squeeze(
        whole_steps.step_table(rows)
    )
