"""A training step of the whole model: every choice, what is trained, no host read, one device, bf16."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from pps_fast import machine
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.losses import Objective
from pps_fast.model import PPS, require_model_memory
from pps_fast.presets import PRESETS
from pps_fast.types import Batch, LossReport, ModelOutput
from tests.support.cases import NEEDED, SIZES, random_batch, randomize, small_config
from tests.support.compare import assert_agree

STEPPED = ("tiny", "charades_released")
# choices under which a parameter has nothing to do; everywhere else every parameter is trained
IDLE = {
    ("reconstructor.importance", "generator"): {"embed.word_cls"},
    ("reconstructor.importance", "none"): {"embed.word_cls"},
    ("proposals.layout", "uniform"): {"embed.word_cls"},
    # one component for each proposal, of which nothing is asked
    ("proposals.negatives.kind", "complement"): {"embed.word_cls"},
}


def _step(model: PPS, batch: Batch) -> LossReport:
    report = Objective(model.config)(model(batch))
    report.total.backward()
    return report


def _choices(part: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Returns every (field, value) of the Literals the model and its losses read."""
    results, hints = [], typing.get_type_hints(type(part))
    for item in dataclasses.fields(part):
        value, path = getattr(part, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            results += [] if path in ("data", "inference", "train") else _choices(value, f"{path}.")
        elif typing.get_origin(hints[item.name]) is typing.Literal:
            results += [(path, choice) for choice in typing.get_args(hints[item.name])]
    return results


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_builds_and_takes_a_step(name: str) -> None:
    model = PPS(small_config(name), SIZES).train()
    report = _step(model, random_batch())
    assert torch.isfinite(report.total)


@pytest.mark.parametrize(("field", "choice"), _choices(PPSConfig()), ids=str)
def test_every_choice_takes_a_training_step_and_trains_all_that_has_something_to_do(field: str, choice: str) -> None:
    torch.manual_seed(0)
    # margins that keep both hinges active
    margins = {"losses__whole_video_margin": 20.0, "losses__negative_margin": 20.0}
    changes = NEEDED.get((field, choice), {}) | {field: choice}
    changes = {name.replace(".", "__"): value for name, value in changes.items()}
    model = PPS(small_config(**margins, **changes), SIZES).train()
    randomize(model)
    # the interpreter takes a while for every program
    report = _step(model, random_batch((3, 2), 4) if choice == "triton" else random_batch())
    assert torch.isfinite(report.total)
    idle = {name for name, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()}
    assert idle == IDLE.get((field, choice), set())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("preset", ["tiny", "charades_released"])
def test_every_parameter_is_trained_from_the_first_step_on(preset: str) -> None:
    """Without the redrawing of parameters: learned tokens and scores start at special values, never at dead ones."""
    torch.manual_seed(0)
    model = PPS(small_config(preset, proposals__num_proposals=3), SIZES).train()
    _step(model, random_batch())
    idle = {name for name, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()}
    assert idle == set()


def test_equal_seeds_give_equal_steps() -> None:
    reports, grads = [], []
    for _ in range(2):
        torch.manual_seed(3)
        model = PPS(small_config(), SIZES).train()
        reports.append(_step(model, random_batch()))
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert_agree("total", reports[0].total, reports[1].total)
    assert_agree("gradients", grads[0], grads[1])
    torch.manual_seed(4)
    other = _step(PPS(small_config(), SIZES).train(), random_batch())
    assert other.total != reports[0].total


def _nothing(output: ModelOutput, report: LossReport) -> None:
    """The clean body reads nothing."""


def _body(model: nn.Module, objective: nn.Module, batch: Batch, between: Callable = _nothing) -> Tensor:
    """Forward, losses, backward and clipping, with something planted before the backward pass."""
    output = model(batch)
    report = objective(output)
    between(output, report)
    report.total.backward()
    return nn.utils.clip_grad_norm_(list(model.parameters()), 10.0, foreach=report.total.device.type != "meta")


def _replaced(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """Converts parameters and buffers in place; `to` would not make them fake."""
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, value in store.items():
                if value is not None:
                    outputs = convert(value).detach()
                    store[name] = nn.Parameter(outputs) if isinstance(value, nn.Parameter) else outputs
    return module


def _fake_body(preset: str, between: Callable = _nothing) -> Tensor:
    config = small_config(preset, proposals__num_proposals=3)
    model, objective, batch = PPS(config, SIZES).train(), Objective(config), random_batch()
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(value) for name, value in batch.tensors().items()}
        return _body(_replaced(model, mode.from_tensor), _replaced(objective, mode.from_tensor), Batch(**fake), between)


@pytest.mark.parametrize("preset", STEPPED)
def test_a_step_reads_nothing_back_to_the_host(preset: str) -> None:
    assert _fake_body(preset).shape == ()


@pytest.mark.parametrize(
    "plant",
    [
        lambda output, report: report.total.item(),
        lambda output, report: bool(output.positive_nll.min() > 0),
        lambda output, report: output.proposals.components.width.argmax().tolist(),
    ],
    ids=["item", "bool", "tolist"],
)
def test_a_planted_host_read_is_found(plant: Callable) -> None:
    with pytest.raises(DataDependentOutputException):
        _fake_body("tiny", plant)


@pytest.mark.parametrize("preset", STEPPED)
def test_a_step_stays_on_the_device_of_its_batch(preset: str) -> None:
    """Tensors of the 'meta' device hold nothing and mix with no other device's."""
    config = small_config(preset, proposals__num_proposals=3)
    model, objective = PPS(config, SIZES).train().to("meta"), Objective(config).to("meta")
    assert _body(model, objective, random_batch().to("meta")).device.type == "meta"


def test_a_planted_tensor_of_another_device_is_found() -> None:
    config = small_config()
    model, objective = PPS(config, SIZES).to("meta"), Objective(config).to("meta")
    with pytest.raises(RuntimeError, match="device"):
        _body(
            model, objective, random_batch().to("meta"), lambda output, report: output.positive_nll + torch.ones(4, 3)
        )


@pytest.mark.parametrize("is_objective_inside", [False, True])
@pytest.mark.parametrize("preset", STEPPED)
def test_bf16_autocast_keeps_masks_scores_and_losses_in_fp32(preset: str, is_objective_inside: bool) -> None:
    config = small_config(preset, proposals__num_proposals=3)
    model, objective, batch = randomize(PPS(config, SIZES).eval()), Objective(config), random_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch)
        report = objective(output) if is_objective_inside else None
    report = report or objective(output)
    results = {**_tensors(output), **report.terms, "total": report.total, "sample_total": report.sample_total}
    assert results.pop("best").dtype == torch.int64
    assert {name for name, value in results.items() if value.dtype != torch.float32} == set()
    exact = objective(model(batch))
    assert (output.positive_nll != model(batch).positive_nll).any(), "autocast did nothing"
    assert_agree("total", report.total, exact.total, rtol=0.02)


def test_losses_under_autocast_are_those_outside_of_it() -> None:
    config = small_config(losses__push_intra=1.0)
    output, objective = PPS(config, SIZES).eval()(random_batch()), Objective(config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = objective(output)
    outside = objective(output)
    for name, value in outside.terms.items():
        assert_agree(name, inside.terms[name], value, rtol=1e-6)


def _tensors(record: Any) -> dict[str, Tensor]:
    results = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if value is not None:
            results |= _tensors(value) if dataclasses.is_dataclass(value) else {item.name: value}
    return results


def test_a_model_beyond_the_free_memory_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    size = sum(weight.numel() * weight.element_size() for weight in PPS(config, SIZES).parameters())
    monkeypatch.setattr(machine, "free_memory", lambda: 4 * size)
    require_model_memory(config, SIZES, 4)
    with pytest.raises(ValueError, match=r"^the model needs .* are free; lower encoder\.hidden_dim, num_layers of"):
        require_model_memory(config, SIZES, 5)
    # hundreds of gigabytes, of which nothing is allocated
    with pytest.raises(ValueError, match=r"^the model needs \d{3}\.\d GiB of memory"):
        require_model_memory(override(config, {"encoder.hidden_dim": 65_536, "encoder.num_heads": 4}), SIZES)
