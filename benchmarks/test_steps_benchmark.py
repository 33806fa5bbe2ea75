"""Times of whole steps in pytest-benchmark, ours beside the published formulation: pytest benchmarks

Training and evaluation with the real sizes of both data sets: on a GPU with the batch of the paper, ours replayed as
CUDA graphs and also in bf16; on a CPU with two samples, unless --step-batch-size says otherwise. Both have the same
weights and the same batch, and must agree without dropout before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.published_baseline import build_published_step, hidden_positions, load_live_weights, published_total
from benchmarks.published_step import published_predictions
from benchmarks.step import BATCH_SIZE, build_step, random_batch, runner, sizes_of
from benchmarks.timing import wait
from benchmarks.whole_steps import AGREEMENT
from pps_fast.config import Precision
from pps_fast.config_tree import override
from pps_fast.eval.predictor import Predictor
from pps_fast.presets import PRESETS
from pps_fast.published.weights import export_released
from pps_fast.types import Batch

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (extra 'test')")

CPU_BATCH_SIZE = 2
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# the published code computes in fp32
IMPLEMENTATIONS: tuple[tuple[str, Precision], ...] = (("published", "fp32"), ("ours", "fp32"))
if DEVICE.type == "cuda":
    IMPLEMENTATIONS += (("ours", "bf16"),)
_cases = pytest.mark.parametrize(("implementation", "precision"), IMPLEMENTATIONS)
_presets = pytest.mark.parametrize("preset", ["charades_released", "activitynet_released"])


class _Pair:
    """A step of ours and a published one of the same weights, and a batch for both."""

    def __init__(self, preset: str, precision: Precision, batch_size: int) -> None:
        changes = {"train.precision": precision, "inference.precision": "bf16" if precision == "bf16" else "fp32"}
        config = self.config = override(PRESETS[preset], changes)
        sizes, lengths = sizes_of(preset)
        self.batch: Batch = random_batch(sizes, lengths, batch_size, DEVICE)
        self.ours = build_step(config, sizes, DEVICE)
        self.published = build_published_step(PRESETS[preset], sizes, DEVICE)
        load_live_weights(self.published.model, export_released(self.ours.model))
        self.hidden = hidden_positions(self.batch, config.reconstructor.hidden_words_divisor)

    def training(self, implementation: str) -> Callable[[], Any]:
        """Returns a training step, after one of each without dropout whose losses agree."""
        for model in (self.ours.model, self.published.model):
            model.eval()
        expected, got = published_total(self.published(self.batch, self.hidden)), self.ours(self.batch).loss.total
        assert abs(got.item() - expected) <= AGREEMENT[self.config.train.precision][0] * abs(expected)
        for model in (self.ours.model, self.published.model):
            model.train()
        if implementation == "published":
            return partial(self.published, self.batch)
        return runner(self.ours, self.batch, DEVICE.type == "cuda")

    def evaluation(self, implementation: str) -> Callable[[], Any]:
        """Returns an evaluation step: forward, ranking and votes, after one of each that agree."""
        model, predictor = self.published.model.eval(), Predictor(self.ours.model, self.config, DEVICE)

        def answer() -> Any:
            with predictor.evaluating() as answer:
                return answer(self.batch)

        expected = published_predictions(model, self.batch, self.hidden).nll
        error = (answer().nll.cpu() - expected).abs() / expected.abs()
        assert error.max() <= AGREEMENT[self.config.train.precision][0]
        # a shape is recorded when it comes again
        answer()
        return answer if implementation == "ours" else partial(published_predictions, model, self.batch)


def _time(request: Any, preset: str, implementation: str, precision: Precision, what: str) -> None:
    size = request.config.getoption("--step-batch-size") or (BATCH_SIZE if DEVICE.type == "cuda" else CPU_BATCH_SIZE)
    step = getattr(_Pair(preset, precision, size), what)(implementation)
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"{preset} {what}"
    benchmark.extra_info.update(batch_size=size, precision=precision, device=DEVICE.type)
    benchmark.pedantic(lambda: (step(), wait(DEVICE)), rounds=3, warmup_rounds=1)


@_cases
@_presets
def test_time_of_a_training_step(request: Any, preset: str, implementation: str, precision: Precision) -> None:
    _time(request, preset, implementation, precision, "training")


@_cases
@_presets
def test_time_of_an_evaluation_step(request: Any, preset: str, implementation: str, precision: Precision) -> None:
    _time(request, preset, implementation, precision, "evaluation")
