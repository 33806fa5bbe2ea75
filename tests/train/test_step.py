"""The training step: what it computes, what it refuses, and that it waits for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._pytree import tree_map

from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import TrainStep
from pps_fast.types import Batch, LossReport
from tests.support.train_runs import small_config, small_input


def _step(config, **changes) -> TrainStep:
    torch.manual_seed(3)
    store, _ = small_input(config)
    model = PPS(config, store.sizes).train()
    options = {"clip_norm": config.train.clip_norm, "precision": config.train.precision, **changes}
    return TrainStep(model, Objective(config), Adam(model.parameters(), lr=1e-2), **options)


def _batch(config, first: int = 0) -> Batch:
    store, splits = small_input(config)
    return store.batch(splits.train[first : first + 8], seed=0)


def _state(step: TrainStep) -> list[torch.Tensor]:
    moments = [value for state in step.optimizer.state.values() for value in state.values()]
    count = step.optimizer.param_groups[0]["update"]
    return [t.detach().clone() for t in (*step.model.parameters(), *moments, count)]


def test_step_is_forward_backward_clip_and_update():
    config = small_config(encoder__dropout=0.0)
    step, expected = _step(config, clip_norm=0.5), _step(config, clip_norm=0.5)
    batch = _batch(config)
    got = step(batch)

    report = expected.objective(expected.model(batch))
    report.total.backward()
    gradients = [p for p in expected.model.parameters() if p.grad is not None]
    norm = torch.cat([p.grad.flatten() for p in gradients]).norm()
    assert norm > 0.5, "the case must clip"
    for parameter in gradients:
        parameter.grad *= 0.5 / (norm + 1e-6)
    expected.optimizer.step()

    torch.testing.assert_close(got.grad_norm, norm)
    assert got.loss.total == report.total.detach() and got.is_finite
    for ours, theirs in zip(step.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_report_is_cut_from_the_graph_and_gradients_are_cleared():
    config = small_config()
    step = _step(config)
    report = step(_batch(config))
    values = [report.loss.total, report.loss.sample_total, report.grad_norm, *report.loss.terms.values()]
    assert not any(value.requires_grad for value in values)
    gradients = [p.grad for p in step.model.parameters() if p.grad is not None]
    assert gradients and not any(gradient.any() for gradient in gradients)


def test_term_of_weight_zero_is_not_reported():
    config = small_config(losses__pull=0.0, losses__push_inter=0.0)
    report = _step(config)(_batch(config))
    assert sorted(report.loss.terms) == ["contrastive", "push_intra", "reconstruction"]


def test_step_after_a_bad_batch_changes_nothing_and_the_flag_stays_down():
    config = small_config()
    step = _step(config)
    good = _batch(config)
    assert step(good).is_finite and step.is_finite
    before = _state(step)
    frames = good.frames.clone()
    frames[5, 3, 0] = float("nan")
    bad = step(replace(good, frames=frames))
    assert not bad.is_finite
    assert torch.isnan(bad.loss.sample_total).nonzero().flatten().tolist() == [5]
    later = step(good)
    # the step itself is fine, and still refused: the state must stay what it was before the bad batch
    assert later.is_finite and not step.is_finite
    assert all(torch.equal(a, b) for a, b in zip(before, _state(step), strict=True))


def test_infinite_gradient_of_a_finite_loss_is_refused():
    class Root(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch: Batch) -> torch.Tensor:
            return self.value

    def objective(output: torch.Tensor) -> LossReport:
        total = output.sqrt().sum()
        return LossReport(total=total, terms={}, sample_total=total.detach().expand(8))

    config, model = small_config(), Root()
    report = TrainStep(model, objective, Adam(model.parameters(), lr=1.0), 10.0)(_batch(config))
    assert report.loss.total == 0 and not report.is_finite
    assert model.value.item() == 0


def test_bf16_autocasts_the_model_and_keeps_losses_and_parameters_in_fp32():
    config = small_config()
    reports = {precision: _step(config, precision=precision)(_batch(config)) for precision in ("fp32", "bf16")}
    loss = reports["bf16"].loss
    assert {value.dtype for value in (loss.total, loss.sample_total, *loss.terms.values())} == {torch.float32}
    assert loss.total != reports["fp32"].loss.total
    torch.testing.assert_close(loss.total, reports["fp32"].loss.total, rtol=0.05, atol=0)
    step = _step(config, precision="bf16")
    step(_batch(config))
    assert {p.dtype for p in step.model.parameters()} == {torch.float32}


def test_tf32_is_allowed_for_the_products_of_a_step_and_for_nothing_after_it():
    config, seen = small_config(), []
    for precision in ("fp32", "tf32"):
        step = _step(config, precision=precision)
        step.model.register_forward_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
        step.parameters[0].register_hook(lambda grad: seen.append(torch.get_float32_matmul_precision()))
        step(_batch(config))
        assert torch.get_float32_matmul_precision() == "highest"
    # forward and backward of each
    assert seen == ["highest", "highest", "high", "high"]


def _fake_step(read_back: bool) -> None:
    """Runs a step on tensors without values, in which every read by the host fails."""
    config = small_config()
    step, batch = _step(config), _batch(config)
    mode = FakeTensorMode(allow_non_fake_inputs=False)

    def convert(module: torch.nn.Module) -> None:
        for name, value in list(module._parameters.items()):
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(mode.from_tensor(value.detach()))
        for name, value in list(module._buffers.items()):
            module._buffers[name] = mode.from_tensor(value)

    step.model.apply(convert)
    step.objective.apply(convert)
    with mode:
        fake = replace(batch, **tree_map(mode.from_tensor, batch.tensors()))
        optimizer = Adam(step.model.parameters(), lr=1e-2)
        step = TrainStep(step.model, step.objective, optimizer, 10.0)
        report = step(fake)
        assert report.loss.total.shape == ()
        if read_back:
            report.loss.total.item()


def test_step_of_the_whole_model_reads_nothing_back_from_the_device():
    _fake_step(read_back=False)


def test_reading_the_loss_would_have_been_noticed():
    with pytest.raises(DataDependentOutputException):
        _fake_step(read_back=True)


def test_a_step_has_a_precision_that_is_decided() -> None:
    with pytest.raises(ValueError, match="train.precision = 'auto': is decided for whole runs only"):
        _step(small_config(), precision="auto")
