"""What is said about the ops of a training step is what the step does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pps_fast.ops
from pps_fast.calls import calls_of
from pps_fast.choices import Choice, choices_of, ops_line
from pps_fast.config import PPSConfig
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.ops import ALL_OPS, OPS
from pps_fast.ops.dispatch import Op
from pps_fast.train import __main__ as train
from tests.support.cases import SIZES, random_batch, small_config

CONFIGS = {
    "tiny": small_config(),
    "released": small_config("charades_released"),
    "activitynet": small_config("activitynet", losses__pull_strategy="all", proposals__mask_shape="laplace"),
    "generator": small_config(reconstructor__importance="generator", train__precision="bf16"),
    "none": small_config(reconstructor__importance="none", losses__pull=0.0, losses__push_intra=0.0),
    "sides": small_config(proposals__negatives__kind="sides", reconstructor__target_length="end_of_sentence"),
    "uniform": small_config(proposals__layout="uniform", losses__push_single=False, losses__pull_strategy="middle"),
    "deep": small_config(reconstructor__num_layers=3, generator__num_layers=2, losses__num_best=2),
    "uneven": small_config(reconstructor__num_layers=2, reconstructor__num_word_layers=1),
    "plain": small_config(reconstructor__schedule="plain", reconstructor__num_layers=2),
    "bf16": small_config(train__precision="bf16", losses__push_inter=0.0),
    "cpl": small_config("cpl_demo", generator__num_layers=2, reconstructor__num_layers=2),
    "cpl plain": small_config("cpl", reconstructor__schedule="plain"),
    "cnm": small_config("cnm_demo"),
}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Any]]:
    """The calls of ops that are made while a test runs."""
    calls: set[Any] = set()
    call = Op.__call__

    def spy(op: Op, *args: Any, **kwargs: Any) -> Any:
        given = [value for name, value in kwargs.items() if name != "backend"]
        calls.add(_described(op, [*args, *given]))
        return call(op, *args, **kwargs)

    monkeypatch.setattr(Op, "__call__", spy)
    yield calls


def _described(op: Op, values: list[Any]) -> Any:
    tensors = [(tuple(value.shape), value.dtype) for value in values if isinstance(value, Tensor)]
    # defaults may be left out by the caller
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if op.name == "residual_norm":
        # not the number of the place in the model
        numbers = [value for value in numbers if isinstance(value, float)]
    return op.name, tuple(sorted(map(str, tensors))), tuple(sorted(numbers))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_calls_are_those_of_a_step(name: str, recorded: set[Any]) -> None:
    config, batch = CONFIGS[name], random_batch()
    model, objective = PPS(config, SIZES), Objective(config)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.train.precision == "bf16"):
        output = model(batch)
    objective(output)
    num_samples, num_columns = batch.word_ids.shape
    calls = calls_of(config, SIZES, num_columns, "cpu", batch_size=num_samples)
    assert {_described(call.op, list(call.inputs.values())) for call in calls} == recorded


def test_every_op_of_every_file_is_listed_once_under_its_file() -> None:
    found = {}
    for file in OPS:
        module = getattr(pps_fast.ops, file)
        found[file] = {value for value in vars(module).values() if isinstance(value, Op)}
    assert found == {file: set(ops) for file, ops in OPS.items()}
    assert len({op.name for op in ALL_OPS}) == len(ALL_OPS)


def _made(config: PPSConfig) -> dict[str, Any]:
    return {choice.op: choice for choice in choices_of(config, SIZES, 9, "cpu")}


def test_choices_cover_every_op_in_order_and_name_every_reason() -> None:
    choices = choices_of(CONFIGS["tiny"], SIZES, 9, "cpu")
    assert list(dict.fromkeys(choice.op for choice in choices)) == [*(op.name for op in ALL_OPS), "clip_adam"]
    for choice in choices:
        assert (choice.backend == "unused") == (not choice.places)
        assert bool(choice.reasons) == (choice.backend in ("torch", "refused"))


def test_under_the_interpreter_auto_takes_the_equation_and_triton_the_kernel(monkeypatch) -> None:
    op = Op("stand-in", torch=lambda **_: 0, triton=lambda **_: 0, unsupported=lambda **_: [], is_interpreted=True)
    for name in ("_triton", "_unsupported", "is_interpreted"):
        monkeypatch.setattr(OPS["gaussian_mask"][0], name, getattr(op, name))
    assert _made(CONFIGS["tiny"])["gaussian_mask"].backend == "torch"
    assert "interpreter" in _made(CONFIGS["tiny"])["gaussian_mask"].reasons[0]
    assert _made(small_config(backend="triton"))["gaussian_mask"].backend == "triton"
    assert _made(small_config(backend="torch"))["gaussian_mask"].reasons == ("backend = 'torch' was asked for",)


def test_an_op_that_is_refused_for_one_of_its_calls_has_two_choices(monkeypatch) -> None:
    def refuse_masks(key_bias: Tensor | None, **_: Any) -> list[str]:
        return [] if key_bias is None else ["masks are not for me"]

    attention = OPS["masked_attention"][0]
    monkeypatch.setattr(attention, "_triton", lambda **_: 0)
    monkeypatch.setattr(attention, "_unsupported", refuse_masks)
    monkeypatch.setattr(attention, "is_interpreted", False)
    choices = [c for c in choices_of(CONFIGS["none"], SIZES, 9, "cpu") if c.op == "masked_attention"]
    assert [(choice.backend, choice.reasons) for choice in choices] == [
        ("triton", ()),
        ("torch", ("masks are not for me",)),
    ]
    assert choices[1].places == ("positives words to frames", "best words to frames")
    line = ops_line(choices)
    assert line.startswith("ops: triton masked_attention in generator words and ") and line.count("\n") == 0
    assert line.endswith(
        "; torch masked_attention in positives words to frames and best words to frames"
        " (python -m pps_fast.info tells why)"
    )
    refused = {c.backend for c in choices_of(small_config(backend="triton"), SIZES, 9, "cpu")}
    assert "refused" in refused


def test_a_training_run_begins_with_the_ops_and_keeps_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--preset", "tiny", "--data.planted.num-videos", "10", "--train.max-steps", "1", "--device", "cpu"]
    assert train.main([*options, "--out", str(run), "--backend", "torch"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ops: ")]
    assert line.startswith("ops: torch gaussian_mask, masked_attention, ")
    assert line.endswith(" (python -m pps_fast.info tells why)")
    kept = json.loads((run / train.OPS_FILE).read_text())
    assert kept["device"] == "cpu"
    assert ops_line([Choice(**choice) for choice in kept["ops"]]) == line
