"""A model whose ops are all fused has the losses, gradients and training of one whose ops are all equations.

Without a GPU, Triton's interpreter runs the kernels at about 10 ms per program, so that models and inputs are as small
as they can be; `tests/ops` covers more shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.encoder import fused_stack
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.ops.dispatch import Op
from pps_fast.presets import CNM, CPL, PRESETS
from pps_fast.published.weights import released_gradients
from pps_fast.reconstructor import reconstructor, shared
from pps_fast.reconstructor.reconstructor import SCHEDULES
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import TrainStep
from pps_fast.types import Batch
from tests.support.cases import SIZES, random_batch, randomize, small_config, take
from tests.support.compare import assert_agree
from tests.support.golden_model import Golden, batch_of, model_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# with a GPU the compiled kernels are meant, and `-m gpu` runs these tests too
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []
GOLDEN = Path(__file__).parent / "golden" / "tiny_topk2.npz"
# two proposals, three components, four positions
SMALL: dict[str, Any] = {"proposals__num_proposals": 2, "proposals__negatives__num_components": 1}
BATCH = random_batch((3, 2), 4)


def _config(**changes: Any) -> PPSConfig:
    return small_config("tiny", **SMALL, **changes)


def _backward(model: PPS, batch: Batch) -> Tensor:
    """Computes every gradient and returns the loss."""
    total = Objective(model.config).to(DEVICE)(model(batch)).total
    total.backward()
    return total


def _step(
    config: PPSConfig, dtype: torch.dtype = torch.float32, batch: Batch = BATCH, seed: int = 0
) -> dict[str, Tensor]:
    """The loss and every gradient of a training step, by name; `seed` is that of the parameters."""
    model = randomize(PPS(config, SIZES), seed).to(DEVICE, dtype).train()
    total = _backward(model, batch.to(DEVICE, dtype))
    return {"loss": total} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _errors(got: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Returns the largest error of each tensor, relative to its largest value or to 0.1 % of the largest value of all.

    Some gradients are zero up to rounding, such as that of a bias before a softmax.
    """
    assert got.keys() == exact.keys()
    smallest = 1e-3 * max(value.abs().max().item() for value in exact.values())
    return {
        name: (got[name].detach().cpu() - value.detach().cpu()).abs().max().item()
        / max(value.abs().max().item(), smallest)
        for name, value in exact.items()
    }  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Returns how often each fused op and sub-layer was called, by its name; filled while the test runs."""
    counted: dict[str, int] = {}
    call = Op.__call__

    def sublayer(name: str, function: Callable[..., Tensor], *args: Any) -> Tensor:
        counted[name] = counted.get(name, 0) + 1
        return function(*args)

    attentions = ("self_attention", "self_attention_of_row", "cross_attention", "cross_attention_of_row")
    for name in (*attentions, "feed_forward"):
        monkeypatch.setattr(fused_stack, name, partial(sublayer, name, getattr(fused_stack, name)))

    def spy(op: Op, *args: Any, backend: str = "auto", **kwargs: Any) -> Any:
        counted[op.name] = counted.get(op.name, 0) + (backend == "triton")
        return call(op, *args, backend=backend, **kwargs)

    monkeypatch.setattr(Op, "__call__", spy)
    return counted


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_a_step_with_dropout_has_the_same_loss_and_gradients(schedule: str, calls: dict[str, int]) -> None:
    config = _config(reconstructor__schedule=schedule, losses__push_intra=1.0)
    assert config.encoder.dropout == 0.1
    fused = _step(override(config, {"backend": "triton"}))
    assert len(calls) >= 11 and all(calls.values()), calls
    equations = _step(override(config, {"backend": "torch"}))
    exact = _step(override(config, {"backend": "torch"}), torch.float64)
    assert len(exact) > 50
    errors, reference = _errors(fused, exact), _errors(equations, exact)
    # measured: loss 1e-8 and 2e-7, gradients 5e-5 and 1e-4, of kernels and equations
    assert errors["loss"] <= 1e-6
    assert max(errors.values()) <= min(2 * max(reference.values()), 2e-4), errors


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reconstructor__target_length": "end_of_sentence", "reconstructor__num_layers": 2},
        {"reconstructor__target_length": "plus_one", "generator__num_layers": 2},
    ],
    ids=["exact", "end_of_sentence", "plus_one"],
)
def test_rows_without_padding_have_the_same_loss_and_gradients(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = override(_config(**changes), {"backend": "triton"})
    batch = random_batch((1, 4, 2), 4)
    expected = _step(config, batch=batch)
    places, put = [], reconstructor.ragged_rows

    def placed(*inputs: Any) -> Any:
        places.append(put(*inputs))
        return places[-1]

    monkeypatch.setattr(reconstructor, "ragged_rows", placed)
    # all words, and one row that is left over; then two masks at a time as well
    got = _step(config, batch=replace(batch, total_words=8))
    assert [len(ragged.index) for ragged in places] == [8 + 3 * 2]
    monkeypatch.setattr(shared, "masks_at_once", lambda frames: 2)
    in_parts = _step(config, batch=replace(batch, total_words=7))
    for name, values in (("all masks", got), ("two at a time", in_parts)):
        errors = _errors(values, expected)
        assert errors["loss"] <= 1e-6 and max(errors.values()) <= 1e-4, (name, errors)


@pytest.mark.parametrize("method", [CPL, CNM], ids=["CPL", "CNM"])
def test_a_step_of_the_ancestors_has_the_same_loss_and_gradients(method: dict[str, Any], calls: dict[str, int]) -> None:
    config = override(_config(), method)
    errors, reference = [], []
    # a gradient in which much cancels has another error with every rounding: the median of draws tells more than one
    for seed in range(3):
        calls.clear()
        fused = _step(override(config, {"backend": "triton"}), seed=seed)
        assert len(calls) >= 8 and all(calls.values()), calls
        equations, exact = (
            _step(override(config, {"backend": "torch"}), dtype, seed=seed) for dtype in (torch.float32, torch.float64)
        )
        assert len(exact) > 40 and any(name.startswith("head.") for name in exact)
        each = _errors(fused, exact)
        assert each["loss"] <= 1e-6
        errors.append(max(each.values()))
        reference.append(max(_errors(equations, exact).values()))
    assert median(errors) <= min(max(2 * median(reference), 1e-5), 2e-4), (errors, reference)


def _distinct_presets() -> dict[str, PPSConfig]:
    """Presets whose small transformers differ, with two proposals where they have several."""
    configs: dict[tuple[Any, ...], tuple[str, PPSConfig]] = {}
    for name, preset in PRESETS.items():
        config = small_config(name, **(SMALL if preset.proposals.num_proposals > 1 else {}))
        configs.setdefault((config.encoder, config.generator, config.reconstructor), (name, config))
    return dict(configs.values())


@pytest.mark.parametrize("preset", _distinct_presets())
def test_a_step_of_every_preset_has_the_same_loss_and_gradients(preset: str) -> None:
    config, batch = _distinct_presets()[preset], take(BATCH, [0])
    fused, equations = (_step(override(config, {"backend": name}), batch=batch) for name in ("triton", "torch"))
    errors = _errors(fused, equations)
    # measured: 2e-7 and 4e-5
    assert errors["loss"] <= 1e-6 and max(errors.values()) <= 2e-4, errors


def test_a_golden_file_has_the_same_loss_and_gradients() -> None:
    golden = Golden(GOLDEN)
    batch = batch_of(golden, torch.float32).to(DEVICE)
    results = {}
    for backend in ("triton", "torch"):
        model = model_of(golden, torch.float32, override(golden.config(), {"backend": backend})).to(DEVICE)
        results[backend] = {"loss": _backward(model, batch)} | released_gradients(model)
    names = [name.removeprefix("f64/grad/") for name in golden.arrays if name.startswith("f64/grad/")]
    assert len(names) > 50
    file = {"loss": golden.tensor("f64/loss/total")} | {name: golden.tensor(f"f64/grad/{name}") for name in names}
    fused = {name: results["triton"][name] for name in file}
    equations = {name: results["torch"][name] for name in file}
    # measured: 1.5e-6 and 1.4e-6
    assert max(_errors(fused, file).values()) <= 2e-5
    assert max(_errors(fused, equations).values()) <= 2e-5


def _losses(config: PPSConfig, batches: list[Batch]) -> Tensor:
    """Losses of training steps, one for each batch."""
    # from these weights fp32 stays within 1e-5 of float64; from others rounding alone grows to 1e-2 in as many steps
    model = randomize(PPS(config, SIZES), seed=6).to(DEVICE).train()
    step = TrainStep(model, Objective(config).to(DEVICE), Adam(model.parameters(), lr=2e-3), config.train.clip_norm)
    return torch.stack([step(batch).loss.total for batch in batches])


def test_twenty_steps_of_training_have_the_same_losses() -> None:
    config = _config(encoder__num_heads=1)
    # the two samples alternate, with another dropout in each step
    keys = torch.arange(1, 21, dtype=torch.int32).unsqueeze(1)
    batches = [replace(take(BATCH, [n % 2]), dropout_key=dropout_key).to(DEVICE) for n, dropout_key in enumerate(keys)]
    losses = {name: _losses(override(config, {"backend": name}), batches) for name in ("triton", "torch")}
    assert losses["torch"][-5:].mean() < losses["torch"][:5].mean() - 0.5
    # measured: 1e-5
    assert_agree("losses", losses["triton"], losses["torch"], atol=1e-4)
