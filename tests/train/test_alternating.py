"""Two updates on every batch: which parameters each changes and by what, and that the second draws anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pps_fast.config_tree import override
from pps_fast.data.sampler import epoch_batches
from pps_fast.losses import LOSS_TERMS, Objective
from pps_fast.model import PPS
from pps_fast.ops.hidden_words import hidden_words
from pps_fast.presets import CNM
from pps_fast.train.alternating import TRAIN_STEPS, AlternatingStep, redrawn
from pps_fast.train.step import TrainStep
from tests.support.cases import SIZES, random_batch, randomize
from tests.support.cases import small_config as small_model
from tests.support.keep_mask import keep_mask
from tests.support.train_runs import run_small, small_config, small_input, weights

BATCH = random_batch()
CONFIG = override(small_model(), CNM)


def _step(**changes) -> AlternatingStep:
    config = override(CONFIG, {name.replace("__", "."): value for name, value in changes.items()})
    step = TRAIN_STEPS["alternating"](randomize(PPS(config, SIZES)).train(), config)
    for optimizer in step.optimizers:
        optimizer.set_learning_rate(1e-2)
    return step


def _values(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def _moved(before: list[Tensor], parameters: list[Tensor]) -> list[bool]:
    return [not torch.equal(old, new) for old, new in zip(before, parameters, strict=True)]


def _expected_update(step: AlternatingStep, number: int, batch, terms: list[str]) -> Tensor:
    """Updates the parameters of one optimizer by its own losses, and returns the norm of their gradient."""
    model, optimizer = step.model, step.optimizers[number]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total = Objective(model.config, terms)(model(batch)).total
    gradients = torch.autograd.grad(total, parameters)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient * min(step.clip_norm / (norm.item() + 1e-6), 1.0)
    optimizer.step()
    return norm


@pytest.mark.parametrize("clip_norm", [0.05, 100.0])
def test_a_step_is_the_reconstruction_for_the_rest_and_then_the_contrast_for_the_mask_head(clip_norm: float) -> None:
    step, expected = (_step(train__clip_norm=clip_norm, losses__negative_margin=2.0) for _ in range(2))
    expected.model.load_state_dict(step.model.state_dict())
    report = step(BATCH)
    others = [name for name in LOSS_TERMS if name != "reconstruction"]
    norms = [
        _expected_update(expected, 0, BATCH, ["reconstruction"]),
        _expected_update(expected, 1, redrawn(BATCH), others),
    ]
    assert min(norms) > 0.05 and max(norms) < 100
    for (name, ours), theirs in zip(step.model.named_parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)
    torch.testing.assert_close(report.grad_norm, torch.stack(norms).norm())
    assert set(report.loss.terms) == {"reconstruction", "contrastive"}
    torch.testing.assert_close(report.loss.total, sum(report.loss.terms.values()))
    assert report.is_finite and report.loss.sample_total.shape == (4,)


def test_every_parameter_is_in_one_optimizer_and_the_mask_head_in_the_second() -> None:
    step = _step()
    first, second = ([id(p) for group in o.param_groups for p in group["params"]] for o in step.optimizers)
    names = {id(parameter): name for name, parameter in step.model.named_parameters()}
    assert sorted(names[one] for one in second) == [
        f"head.{x}.{y}" for x in ("center", "width") for y in ("bias", "weight")
    ]
    assert sorted(first + second) == sorted(names)


def test_learned_negatives_belong_to_the_masks() -> None:
    step = _step(proposals__negatives__kind="learned")
    second = {id(p) for group in step.optimizers[1].param_groups for p in group["params"]}
    assert {id(parameter) for parameter in step.model.negatives.parameters()} <= second


def test_a_bad_first_update_stops_both() -> None:
    step = _step()
    step(BATCH)
    before = _values(step.parameters)
    report = step(replace(BATCH, frames=BATCH.frames * float("nan")))
    assert not report.is_finite and not step.is_finite
    assert step(BATCH).is_finite
    assert not any(_moved(before, step.parameters))


def test_a_bad_second_update_is_not_made_and_reported() -> None:
    step = _step()
    objective = step.objectives[1]

    def bad(output):
        report = objective(output)
        return replace(report, total=report.total * float("inf"))

    step.objectives = (step.objectives[0], bad)
    heads = step.model.mask_parameters()
    before = _values(heads)
    report = step(BATCH)
    assert not report.is_finite and not step.is_finite
    assert not any(_moved(before, heads))


def test_a_redrawn_batch_has_other_dropout_and_noise_and_is_the_same_each_time() -> None:
    again = redrawn(BATCH)
    for name, value in BATCH.tensors().items():
        is_drawn = name in ("dropout_key", "word_noise")
        assert torch.equal(getattr(again, name), value) != is_drawn, name
        assert torch.equal(getattr(again, name), getattr(redrawn(BATCH), name)), name
        assert getattr(again, name).dtype == value.dtype
    masks = [keep_mask(batch.dropout_key, (20, 64), 0.5).float() for batch in (BATCH, again)]
    correlation = ((masks[0] - 0.5) * (masks[1] - 0.5)).mean() * 4
    assert abs(correlation) < 0.05


def test_a_sample_is_redrawn_the_same_in_whatever_batch() -> None:
    alone = redrawn(replace(BATCH, dropout_key=BATCH.dropout_key[2:3], word_noise=BATCH.word_noise[2:3, :5]))
    assert torch.equal(alone.word_noise[0], redrawn(BATCH).word_noise[2, :5])
    assert torch.equal(alone.dropout_key[0], redrawn(BATCH).dropout_key[2])


def test_redrawn_words_are_hidden_with_their_probability() -> None:
    """Exact for one word of a sentence of four; the standard error of a share is 0.004."""
    num, probability = 15000, torch.tensor([0.1, 0.2, 0.3, 0.4])
    rows = torch.zeros(num, 4)
    many = replace(BATCH, dropout_key=torch.arange(num, dtype=torch.int32), word_noise=rows)
    noise = redrawn(many).word_noise
    assert torch.isfinite(noise).all()
    hidden = hidden_words(probability.expand(num, -1), noise, torch.full((num,), 4), 3)
    torch.testing.assert_close(hidden.float().mean(0), probability, rtol=0, atol=0.016)


def test_a_joint_step_is_one_update_of_everything() -> None:
    step = TRAIN_STEPS["joint"](PPS(small_model(), SIZES), small_model())
    assert type(step) is TrainStep and len(step.optimizers) == 1
    assert len(step.optimizers[0].param_groups[0]["params"]) == len(list(step.model.parameters()))


def test_a_resumed_alternating_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    config = override(small_config(), CNM)
    run_small(config, tmp_path / "whole")
    first = override(config, {"train.max_steps": 5})
    run_small(first, tmp_path / "resumed")
    run_small(config, tmp_path / "resumed", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "resumed")


def test_training_lowers_both_losses() -> None:
    config = override(small_config(encoder__dropout=0.0), CNM)
    store, splits = small_input(config)
    torch.manual_seed(0)
    step = TRAIN_STEPS["alternating"](PPS(config, store.sizes).train(), config)
    for optimizer in step.optimizers:
        optimizer.set_learning_rate(3e-3)
    totals = []
    for epoch in range(6):
        for samples in epoch_batches(splits.train, 8, 0, epoch):
            totals.append(step(store.batch(samples, seed=0, epoch=epoch)).loss.terms)
    for name in ("reconstruction", "contrastive"):
        values = torch.stack([terms[name] for terms in totals])
        assert values[-6:].mean() < values[:6].mean(), name
