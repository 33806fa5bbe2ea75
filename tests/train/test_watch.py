"""The watch names the first bad batch, however late it looks."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pps_fast.train.step import StepReport
from pps_fast.train.watch import FiniteWatch, NonFiniteLossError, diverged
from pps_fast.types import LossReport
from tests.support.train_runs import small_config, small_input


def _report(per_sample: list[float]) -> StepReport:
    losses = torch.tensor(per_sample)
    loss = LossReport(total=losses.mean(), terms={}, sample_total=losses)
    return StepReport(loss=loss, grad_norm=losses.sum())


def _watch() -> FiniteWatch:
    data = small_input(small_config())[0].data
    return FiniteWatch(SimpleNamespace(is_finite=torch.tensor(True)), data, steps_per_epoch=6)


def test_late_check_names_the_first_bad_step_its_samples_and_the_culprit():
    watch, nan = _watch(), float("nan")
    watch.add(6, np.array([1, 2]), _report([1.0, 1.0]))
    watch.add(7, np.array([30, 40]), _report([1.0, nan]))
    watch.add(8, np.array([5, 6]), _report([nan, nan]))
    watch.train_step.is_finite.fill_(False)
    video, sentence = watch.data.video_ids[watch.data.sample_video[40]], watch.data.sentences[40]
    with pytest.raises(NonFiniteLossError) as caught:
        watch.check(Path("runs/x/checkpoints/step_000005"))
    message = str(caught.value)
    assert message.startswith("update 7, epoch 2: loss nan")
    assert f"not finite: samples 40 (video {video!r}, sentence {sentence!r});" in message
    assert "samples of the batch: 30, 40." in message
    assert message.endswith("the last good checkpoint is runs/x/checkpoints/step_000005")


def test_bad_gradient_of_a_finite_loss_says_that_no_sample_stands_out():
    watch = _watch()
    report = _report([1.0, 2.0])
    watch.add(
        1,
        np.array([3, 4]),
        StepReport(loss=report.loss, grad_norm=torch.tensor(float("inf"))),
    )
    watch.train_step.is_finite.fill_(False)
    with pytest.raises(
        NonFiniteLossError, match=re.escape("gradient norm inf; not finite: no single sample")
    ) as caught:
        watch.check(None)
    assert "nothing was saved yet" in str(caught.value)


def test_remedy_is_the_learning_rate_where_the_features_are_finite_and_else_the_features():
    watch = _watch()
    features = watch.data.features.copy()
    features[watch.data.sample_video[40], 0, 0] = np.nan
    for data, words in (
        (watch.data, r"lower train\.learning_rate .* train\.warmup_updates\. The update was not made"),
        (SimpleNamespace(**{**vars(watch.data), "features": features}), "Look at the features of these videos"),
    ):
        other = FiniteWatch(SimpleNamespace(is_finite=torch.tensor(False)), data, steps_per_epoch=6)
        other.add(1, np.array([40]), _report([float("nan")]))
        with pytest.raises(NonFiniteLossError, match=words):
            other.check(None)


def test_message_about_a_large_batch_of_long_sentences_stays_short():
    watch, samples = _watch(), np.arange(48).repeat(20)
    watch.data = SimpleNamespace(**{**vars(watch.data), "sentences": ["word " * 500] * 48})
    watch.add(1, samples, _report([float("nan")] * len(samples)))
    watch.train_step.is_finite.fill_(False)
    with pytest.raises(NonFiniteLossError, match="and 957 more") as caught:
        watch.check(None)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("first", "last", "has_diverged"),
    [(5.0, 51.0, True), (5.0, 49.0, False), (0.001, 9.0, False), (-3.0, 31.0, True), (5.0, 4.0, False)],
)
def test_loss_that_rises_tenfold_is_said_with_the_remedy(first, last, has_diverged):
    text = diverged(first, last)
    assert (text is not None) == has_diverged
    if text is not None:
        assert f"from {first:.4g} to {last:.4g}" in text and "lower train.learning_rate" in text


def test_approved_steps_are_forgotten():
    watch = _watch()
    watch.add(1, np.array([1]), _report([float("nan")]))
    # the flag is what counts: it is up, so the step is approved of and its tensors are let go
    watch.check(None)
    watch.add(2, np.array([2]), _report([float("nan")]))
    watch.train_step.is_finite.fill_(False)
    with pytest.raises(NonFiniteLossError, match="^update 2,"):
        watch.check(None)
