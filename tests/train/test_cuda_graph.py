"""Captured steps: what is recorded, what a replay reads, and that a recording leaves no trace in the model.

A CPU has no graphs: a stand-in runs the program again and writes its report where the first one lies.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from pps_fast.config_tree import override
from pps_fast.data.store import Store
from pps_fast.data.synthetic import planted_data
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.ops.weights import rounded
from pps_fast.presets import CNM, PRESETS
from pps_fast.recordings import Recording, Recordings
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.cuda_graph import CapturedStep, EagerStep, restored
from pps_fast.train.optimizer import MOMENTS, Adam
from pps_fast.train.step import StepReport, TrainStep
from tests.support.compare import assert_agree
from tests.support.tape import TapeRecorder

CONFIG = override(PRESETS["tiny"], {"encoder.dropout": 0.1, "train.batch_size": 4})
DATA = planted_data(CONFIG.data.planted)


def _tensors(record: Any) -> list[Tensor]:
    """All tensors of nested records, in order."""
    if isinstance(record, Tensor):
        return [record]
    parts = record.values() if isinstance(record, dict) else vars(record).values()
    return [tensor for part in parts for tensor in _tensors(part)]


class FakeRecorder:
    """Runs the program twice as warm-up, as the real one does, and once where the real one only records.

    A replay runs it again; `tests.support.tape` replays what it did, which does not go for programs that wait for
    other threads.
    """

    def __init__(self) -> None:
        self.num_recordings = 0

    def __call__(self, program: Callable[[], StepReport], pool: Any) -> Recording[StepReport]:
        self.num_recordings += 1
        for _ in range(2):
            program()
        report = program().clone()

        def replay() -> None:
            for kept, new in zip(_tensors(report), _tensors(program()), strict=True):
                kept.copy_(new)

        return Recording(replay, report, None)


def _train_step(store: Store) -> TrainStep:
    torch.manual_seed(0)
    model = PPS(CONFIG, store.sizes).to(store.device).train()
    optimizer = Adam(model.parameters(), lr=1e-3)
    return TrainStep(model, Objective(CONFIG).to(store.device), optimizer, CONFIG.train.clip_norm)


def _batches(size: int = 4, number: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.choice(DATA.num_samples, size, replace=False).astype(np.int64) for _ in range(number)]


def _losses(store: Store, run: EagerStep, batches: list[np.ndarray]) -> list[StepReport]:
    reports = []
    for epoch, samples in enumerate(batches):
        # another pass each time, so that a recording that kept the noise of its own would be seen
        store.begin_pass(8, epoch)
        reports.append(run(samples))
    return reports


def test_replays_train_like_eager_steps_and_reports_are_kept() -> None:
    store = Store(DATA)
    eager, captured = _train_step(store), _train_step(store)
    recorder = FakeRecorder()
    expected = _losses(store, EagerStep(eager, store), _batches())
    got = _losses(store, CapturedStep(captured, store, 4, recorder), _batches())
    shapes = {(store.num_columns(samples).max(), store.total_words(samples)) for samples in _batches()}
    assert recorder.num_recordings == len(shapes) < len(expected)
    # compared after the last step: no replay wrote over an earlier report
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        for got, wanted in zip(_tensors(one), _tensors(other), strict=True):
            assert_agree(f"report {index}", got, wanted)
    for got, wanted in zip(captured.parameters, eager.parameters, strict=True):
        assert_agree("parameter", got, wanted)


def test_replays_on_recorded_memory_train_like_eager_steps_to_the_bit() -> None:
    store, recorder = Store(DATA), TapeRecorder()
    eager, captured = _train_step(store), _train_step(store)
    expected = _losses(store, EagerStep(eager, store), _batches())
    got = _losses(store, CapturedStep(captured, store, 4, recorder), _batches())
    assert recorder.num_replays == len(expected) > recorder.num_recordings > 1
    _assert_equal(got, expected, captured, eager)


def _assert_equal(got: list[StepReport], expected: list[StepReport], captured: TrainStep, eager: TrainStep) -> None:
    for one, other in zip(got, expected, strict=True):
        for ours, wanted in zip(_tensors(one), _tensors(other), strict=True):
            assert_agree("report", ours, wanted)
    for ours, wanted in zip(captured.parameters, eager.parameters, strict=True):
        assert_agree("parameter", ours, wanted)


def _with_reloaded_moments(store: Store, run: EagerStep) -> list[StepReport]:
    """Reports of steps between which the optimizer's moments are replaced, and others are in the old memory."""
    reports = _losses(store, run, _batches(number=3))
    optimizer = run.train_step.optimizer
    state = optimizer.state_dict()
    for moments in state["state"].values():
        moments["first_moment"] = -moments["first_moment"]
    optimizer.load_state_dict(state)
    return reports + _losses(store, run, _batches(number=3))


def test_moments_that_were_replaced_are_used_and_stale_ones_would_be_without_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, recorder = Store(DATA), TapeRecorder()
    eager, captured = _train_step(store), _train_step(store)
    expected = _with_reloaded_moments(store, EagerStep(eager, store))
    got = _with_reloaded_moments(store, CapturedStep(captured, store, 4, recorder))
    _assert_equal(got, expected, captured, eager)
    monkeypatch.setattr(Recordings, "_current_addresses", lambda self: [])
    stale = _with_reloaded_moments(store, CapturedStep(_train_step(store), store, 4, TapeRecorder()))
    assert stale[-1].loss.total != expected[-1].loss.total


def test_rounded_weights_of_a_later_evaluation_are_written_by_the_updates_after_it() -> None:
    store = Store(DATA)
    step = _train_step(store)
    run = CapturedStep(step, store, 4, TapeRecorder())
    _losses(store, run, _batches(number=3))
    copies = [rounded(parameter, torch.bfloat16) for parameter in step.parameters]
    _losses(store, run, _batches(number=3))
    for parameter, copy in zip(step.parameters, copies, strict=True):
        assert rounded(parameter, torch.bfloat16) is copy
        assert_agree("rounded", copy, parameter.detach().bfloat16())


def test_a_moved_model_is_refused_and_not_trained_where_it_was() -> None:
    store = Store(DATA)
    step = _train_step(store)
    run = CapturedStep(step, store, 4, TapeRecorder())
    _losses(store, run, _batches(number=3))
    for parameter in step.parameters:
        parameter.data = parameter.data.clone()
    with pytest.raises(ValueError, match="was moved or converted after its first update"):
        _losses(store, run, _batches(number=3))


def test_batches_of_another_size_run_eagerly() -> None:
    store, recorder = Store(DATA), FakeRecorder()
    run = CapturedStep(_train_step(store), store, 4, recorder)
    _losses(store, run, _batches(size=3))
    assert recorder.num_recordings == 0


def test_a_recording_warms_up_on_its_own_samples_and_finds_no_node_of_another_stream() -> None:
    store = Store(DATA)
    step, recorder, seen = _train_step(store), FakeRecorder(), []
    run = CapturedStep(step, store, 4, lambda program, pool: record(program, pool))

    def record(program: Callable[[], StepReport], pool: Any) -> Recording[StepReport]:
        # other samples may have more words than the recording has columns, which a GPU's gather does not survive
        seen.append(run._index.clone())
        for parameter in step.parameters:
            # a node that is still alive is the same at the next look, and a capture must wait for its stream
            get_gradient_edge(parameter).node.metadata["seen"] = True
            assert "seen" not in get_gradient_edge(parameter).node.metadata
        return recorder(program, pool)

    _losses(store, run, _batches())
    firsts = {
        (store.num_columns(samples).max(), store.total_words(samples)): samples for samples in reversed(_batches())
    }
    assert {tuple(index.tolist()) for index in seen} == {tuple(samples) for samples in firsts.values()}


def test_what_cannot_be_captured_is_said_once_and_trains_eagerly() -> None:
    store = Store(DATA)
    calls = []

    def fail(program: Callable[[], StepReport], pool: Any) -> Recording[StepReport]:
        calls.append(program())
        raise RuntimeError("operation not permitted when stream is capturing\nand a second line")

    eager, failing = _train_step(store), _train_step(store)
    expected = _losses(store, EagerStep(eager, store), _batches())
    run = CapturedStep(failing, store, 4, fail)
    with pytest.warns(UserWarning, match="could not be captured: operation not permitted when stream is capturing$"):
        got = _losses(store, run, _batches()[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch, samples in enumerate(_batches()[1:], 1):
            store.begin_pass(8, epoch)
            got.append(run(samples))
    assert len(calls) == 1
    # what the failed attempt had trained was taken back
    for one, other in zip(got, expected, strict=True):
        assert_agree("loss", one.loss.total, other.loss.total)


def test_other_errors_than_those_of_a_capture_are_not_swallowed() -> None:
    store = Store(DATA)

    def broken(program: Callable[[], StepReport], pool: Any) -> Recording[StepReport]:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        _losses(store, CapturedStep(_train_step(store), store, 4, broken), _batches())


def test_restored_takes_back_all_a_step_changes_in_place() -> None:
    store = Store(DATA)
    train_step = _train_step(store)
    run = EagerStep(train_step, store)
    store.begin_pass(8, 0)
    before = [parameter.clone() for parameter in train_step.parameters]
    with restored(train_step):
        run(_batches()[0])
        # where the first update moved them
        addresses = [parameter.data_ptr() for parameter in train_step.parameters]
        run(_batches()[1])
        train_step.is_finite.fill_(False)
        assert any(not torch.equal(p, b) for p, b in zip(train_step.parameters, before, strict=True))
    assert [parameter.data_ptr() for parameter in train_step.parameters] == addresses
    for parameter, kept in zip(train_step.parameters, before, strict=True):
        assert_agree("parameter", parameter, kept)
        state = train_step.optimizer.state[parameter]
        assert all(not moment.any() for moment in state.values())
        assert parameter.grad is None or not parameter.grad.any()
    assert train_step.is_finite and train_step.optimizer.param_groups[0]["update"] == 0


def test_restored_keeps_the_moments_of_a_resumed_run_that_its_block_moves_into_buffers() -> None:
    store = Store(DATA)
    train_step = _train_step(store)
    optimizer = train_step.optimizer
    # as `checkpoint.restore` leaves them
    for parameter in train_step.parameters:
        optimizer.state[parameter].update({moment: torch.full_like(parameter, 0.5) for moment in MOMENTS})
    store.begin_pass(8, 0)
    with restored(train_step):
        EagerStep(train_step, store)(_batches()[0])
        moments = [value for parameter in train_step.parameters for value in optimizer.state[parameter].values()]
        assert not all((moment == 0.5).all() for moment in moments)
    assert moments and all((moment == 0.5).all() for moment in moments)


def test_a_recording_of_two_updates_leaves_no_trace_and_replays_both() -> None:
    config = override(CONFIG, CNM)
    losses, steps = [], []
    for record in (None, FakeRecorder()):
        store = Store(DATA)
        torch.manual_seed(0)
        step = TRAIN_STEPS["alternating"](PPS(config, store.sizes).train(), config)
        for optimizer in step.optimizers:
            optimizer.set_learning_rate(1e-3)
        run = EagerStep(step, store) if record is None else CapturedStep(step, store, 4, record)
        losses.append([report.loss.total.item() for report in _losses(store, run, _batches())])
        steps.append(step)
    assert losses[0] == losses[1]
    for eager, captured in zip(steps[0].parameters, steps[1].parameters, strict=True):
        assert_agree("parameter", captured, eager)
    assert [optimizer.param_groups[0]["update"].item() for optimizer in steps[1].optimizers] == [6, 6]


def test_a_report_and_its_copy_share_no_memory() -> None:
    store = Store(DATA)
    store.begin_pass(8, 0)
    report = EagerStep(_train_step(store), store)(_batches()[0])
    copy = report.clone()
    assert {field.name for field in dataclasses.fields(copy)} == {field.name for field in dataclasses.fields(report)}
    for kept, copied in zip(_tensors(report), _tensors(copy), strict=True):
        assert_agree("copy", copied, kept)
        assert copied.data_ptr() != kept.data_ptr()


@pytest.mark.gpu
def test_captured_and_eager_steps_agree_on_a_gpu() -> None:
    store = Store(DATA, "cuda")
    eager, captured = _train_step(store), _train_step(store)
    batches = _batches(number=20)
    expected = [report.loss.total.item() for report in _losses(store, EagerStep(eager, store), batches)]
    run = CapturedStep(captured, store, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = [report.loss.total.item() for report in _losses(store, run, batches)]
    assert got == pytest.approx(expected, rel=1e-4)
    pools = {recording.pool for recording in run._recordings._recordings.values()}
    assert len(pools) == 1 < len(run._recordings)


@pytest.mark.gpu
def test_moments_that_were_replaced_are_used_on_a_gpu() -> None:
    store = Store(DATA, "cuda")
    eager, captured = _train_step(store), _train_step(store)
    expected = _with_reloaded_moments(store, EagerStep(eager, store))
    got = _with_reloaded_moments(store, CapturedStep(captured, store, 4))
    losses = [[report.loss.total.item() for report in reports] for reports in (got, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.gpu
def test_a_replay_never_waits_for_the_device() -> None:
    store = Store(DATA, "cuda")
    run = CapturedStep(_train_step(store), store, 4)
    batches = _batches()
    _losses(store, run, batches)
    store.begin_pass(8, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(batches[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
