"""What serves the ops of a step, and why not the other, follows from the records of the step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.ops import ALL_OPS, OPS
from pps_fast.ops.choices import Choice, choices_of, ops_line
from pps_fast.ops.record import Record
from pps_fast.train import __main__ as train
from pps_fast.train.fake_step import record_step
from tests.support.cases import SIZES, small_config


def _choices(config: PPSConfig) -> list[Choice]:
    return choices_of(record_step(config, SIZES, 9, "cpu"))


def _choice_of_mask(config: PPSConfig) -> Choice:
    (choice,) = (choice for choice in _choices(config) if choice.op == "gaussian_mask")
    return choice


def test_choices_cover_every_op_in_order_and_name_every_reason() -> None:
    choices = _choices(small_config())
    assert list(dict.fromkeys(choice.op for choice in choices)) == [*(op.name for op in ALL_OPS), "clip_adam"]
    for choice in choices:
        assert (choice.backend == "unused") == (not choice.sites)
        assert bool(choice.reasons) == (choice.backend in ("torch", "refused"))


def test_no_records_are_ops_that_are_unused() -> None:
    assert {choice.backend for choice in choices_of([])} == {"unused"}
    assert ops_line(choices_of([])) == "ops: "


def test_a_site_that_is_also_called_within_another_part_is_listed_once() -> None:
    sites = ("importance: reconstructor.words", "reconstructor.words", "importance: generator", "losses")
    where = Choice("push", "torch", sites[:2]).where, Choice("push", "torch", sites[2:]).where
    assert where == ("reconstructor.words (also within importance)", "importance: generator, losses")


def test_under_the_interpreter_auto_takes_the_equation_and_triton_the_kernel(monkeypatch) -> None:
    mask = OPS["gaussian_mask"][0]
    monkeypatch.setattr(mask, "_triton", mask._torch)
    monkeypatch.setattr(mask, "_unsupported", lambda *_, **__: [])
    monkeypatch.setattr(mask, "is_interpreted", True)
    automatic = _choice_of_mask(small_config())
    assert automatic.backend == "torch" and "interpreter" in automatic.reasons[0]
    assert _choice_of_mask(small_config(backend="triton")).backend == "triton"
    assert _choice_of_mask(small_config(backend="torch")).reasons == ("backend = 'torch' was asked for",)


def test_an_op_that_is_refused_for_one_of_its_calls_has_two_choices(monkeypatch) -> None:
    def refuse_masks(*_: Tensor, key_bias: Tensor | None, **others: Any) -> list[str]:
        return [] if key_bias is None else ["masks are not for me"]

    attention = OPS["masked_attention"][0]
    monkeypatch.setattr(attention, "_triton", attention._torch)
    monkeypatch.setattr(attention, "_unsupported", refuse_masks)
    monkeypatch.setattr(attention, "is_interpreted", False)
    config = small_config(reconstructor__importance="none")
    choices = [c for c in _choices(config) if c.op == "masked_attention"]
    assert [(choice.backend, choice.reasons) for choice in choices] == [
        ("triton", ()),
        ("torch", ("masks are not for me",)),
    ]
    assert choices[1].sites == ("reconstructor.word_stack.cross_attention",)
    line = ops_line(choices)
    assert line.startswith("ops: triton masked_attention in ") and line.count("\n") == 0
    assert line.endswith(
        "; torch masked_attention in reconstructor.word_stack.cross_attention (python -m pps_fast.info tells why)"
    )
    # asked for by name, what cannot serve is refused; the records tell so, whatever computed the call
    insisted = choices_of(record_step(small_config(backend="triton"), SIZES, 9, "cpu"))
    assert ("refused", ("masks are not for me",)) in [(c.backend, c.reasons) for c in insisted]


def test_many_sites_are_counted_and_their_parts_named() -> None:
    sites = ("generator.a", "generator.b", "importance: reconstructor.a", "reconstructor.a")
    assert Choice("push", "triton", sites[:3]).where == "generator.a, generator.b, importance: reconstructor.a"
    assert Choice("push", "triton", sites).where == "4 sites in generator, importance, reconstructor"


def test_a_site_that_is_called_again_is_listed_once() -> None:
    op = ALL_OPS[0]
    record = Record(op, "components", "torch", {})
    assert choices_of([record, record])[0].sites == ("components",)


def test_a_training_run_begins_with_the_ops_and_keeps_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--data.planted.num-videos", "10", "--train.max-steps", "1", "--device", "cpu"]
    assert train.main([*options, "--out", str(run), "--backend", "torch"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ops: ")]
    assert line.startswith("ops: torch gaussian_mask, gaussian_exponent, masked_attention, ")
    assert line.endswith(" (python -m pps_fast.info tells why)")
    kept = json.loads((run / train.OPS_FILE).read_text())
    assert kept["device"] == "cpu"
    assert ops_line([Choice(**choice) for choice in kept["ops"]]) == line
