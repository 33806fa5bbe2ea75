"""Recorded answers: those of an eager model to the bit, of its present weights, from few recordings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pps_fast.eval.predictor as predictor_module
from pps_fast.config_tree import override
from pps_fast.data.store import Store
from pps_fast.eval.predictions import predict_samples
from pps_fast.eval.predictor import Predictor, is_captured
from pps_fast.model import PPS
from pps_fast.ops.weights import rounded
from pps_fast.recordings import Recording, Recordings, Result
from pps_fast.train.optimizer import Adam
from pps_fast.types import Prediction
from tests.support.compare import assert_agree
from tests.support.eval_fakes import CONFIG, DATA, SPLITS, output_of
from tests.support.tape import TapeRecorder

CPU = torch.device("cpu")
SAMPLES = SPLITS.test[:40]
STORE = Store(DATA)


def _model(device: torch.device = CPU) -> PPS:
    torch.manual_seed(3)
    return PPS(CONFIG, DATA.sizes).to(device)


def _recorded(model: nn.Module, config=CONFIG) -> tuple[TapeRecorder, Callable[[], Prediction]]:
    """Returns a recorder, and what predicts SAMPLES by it."""
    recorder = TapeRecorder(warm_ups=1)
    predictor = Predictor(model, config, CPU, recorder)
    return recorder, lambda: predict_samples(model, STORE, SAMPLES, config, predictor=predictor)


def _assert_equal(got: Prediction, expected: Prediction) -> None:
    for name, value in vars(expected).items():
        assert_agree(name, getattr(got, name), value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_answers_are_those_of_an_eager_model_to_the_bit(precision: str) -> None:
    config = override(CONFIG, {"inference.precision": precision})
    model = _model()
    expected = predict_samples(model, STORE, SAMPLES, config)
    recorder, predict = _recorded(model, config)
    shapes, batches = np.unique(STORE.num_columns(SAMPLES), return_counts=True)
    num_batches = int((-(-batches // 16)).sum())
    for number in range(1, 4):
        _assert_equal(predict(), expected)
        # eager when a shape comes first, recorded when it comes again
        assert recorder.num_replays == number * num_batches - len(shapes)
    assert recorder.num_recordings == len(shapes) > 1


def test_a_call_of_one_batch_of_each_shape_records_nothing() -> None:
    recorder, predict = _recorded(_model(), override(CONFIG, {"inference.batch_size": 64}))
    predict()
    assert recorder.num_recordings == 0


def test_weights_that_an_optimizer_moves_or_changes_are_those_that_answer() -> None:
    model = _model()
    recorder, predict = _recorded(model)
    predict(), predict()
    optimizer = Adam(model.parameters(), lr=0.05)
    for step in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) if step == 0 else parameter.grad.fill_(1.0)
        optimizer.step()
        _assert_equal(predict(), predict_samples(model, STORE, SAMPLES, CONFIG))
    before = recorder.num_recordings
    model.load_state_dict({name: 0.9 * value for name, value in model.state_dict().items()})
    _assert_equal(predict(), predict_samples(model, STORE, SAMPLES, CONFIG))
    assert recorder.num_recordings == before


def test_moved_weights_would_not_be_seen_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recordings, "_current_addresses", lambda self: [])
    model = _model()
    _, predict = _recorded(model)
    stale = predict(), predict()
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5
    _assert_equal(predict(), stale[1])


class _Rounding(nn.Module):
    """Answers by the rounded copy of a weight, as products of the fused path read it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, batch, with_negatives: bool):
        nll = batch.frames[:, 0, :3] * rounded(self.weight, torch.bfloat16).float()
        return output_of(nll, nll.sigmoid().unsqueeze(-1).expand(-1, -1, 2))


def test_rounded_copies_of_weights_are_made_anew_before_a_replay() -> None:
    model = _Rounding()
    recorder, predict = _recorded(model)
    predict(), predict()
    with torch.no_grad():
        model.weight.mul_(-2)
    before = recorder.num_recordings
    _assert_equal(predict(), predict_samples(model, STORE, SAMPLES, CONFIG))
    assert recorder.num_recordings == before > 0


def test_answers_are_kept_and_shapes_beyond_the_limit_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "MAX_RECORDINGS", 1)
    model = _model()
    recorder, predict = _recorded(model)
    answers = [predict() for _ in range(3)]
    expected = predict_samples(model, STORE, SAMPLES, CONFIG)
    for answer in answers:
        _assert_equal(answer, expected)
    assert recorder.num_recordings == 1


def test_what_cannot_be_captured_is_said_once_and_answers_eagerly() -> None:
    def fail(program: Callable[[], Result], pool: Any) -> Recording[Result]:
        raise RuntimeError("operation not permitted when stream is capturing\nand a second line")

    model = _model()
    predictor = Predictor(model, CONFIG, CPU, fail)
    expected = predict_samples(model, STORE, SAMPLES, CONFIG)
    with pytest.warns(UserWarning, match="could not be captured: operation not permitted when stream is capturing$"):
        _assert_equal(predict_samples(model, STORE, SAMPLES, CONFIG, predictor=predictor), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _assert_equal(predict_samples(model, STORE, SAMPLES, CONFIG, predictor=predictor), expected)


def test_capture_is_for_networks_on_a_gpu_unless_it_is_switched_off() -> None:
    gpu = torch.device("cuda")
    assert is_captured(CONFIG, gpu) and not is_captured(CONFIG, CPU)
    assert not is_captured(override(CONFIG, {"inference.capture": False}), gpu)
    assert not is_captured(override(CONFIG, {"method": "alignment"}), gpu)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captured_and_eager_answers_agree_to_the_bit_on_a_gpu(precision: str) -> None:
    device = torch.device("cuda")
    store, model = Store(DATA, device), _model(device)
    config = override(CONFIG, {"inference.precision": precision})
    eager = override(config, {"inference.capture": False})
    predictor = Predictor(model, config, device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for factor in (1.0, 0.9):
            model.load_state_dict({name: factor * value for name, value in model.state_dict().items()})
            expected = predict_samples(model, store, SAMPLES, eager)
            for _ in range(3):
                _assert_equal(predict_samples(model, store, SAMPLES, config, predictor=predictor), expected)
