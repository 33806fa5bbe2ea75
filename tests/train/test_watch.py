"""The watch names the first bad batch, however late it looks."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pps_fast.train.step import StepReport
from pps_fast.train.watch import FiniteWatch, NonFiniteLossError
from pps_fast.types import LossReport
from tests.support.train_runs import small_config, small_input


def _report(per_sample: list[float]) -> StepReport:
    losses = torch.tensor(per_sample)
    loss = LossReport(total=losses.mean(), terms={}, sample_total=losses)
    return StepReport(loss=loss, grad_norm=losses.sum(), is_finite=torch.isfinite(losses.sum()))


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
        StepReport(loss=report.loss, grad_norm=torch.tensor(float("inf")), is_finite=~report.is_finite),
    )
    watch.train_step.is_finite.fill_(False)
    with pytest.raises(
        NonFiniteLossError, match=re.escape("gradient norm inf; not finite: no single sample")
    ) as caught:
        watch.check(None)
    assert "nothing was saved yet" in str(caught.value)


def test_approved_steps_are_forgotten():
    watch = _watch()
    watch.add(1, np.array([1]), _report([float("nan")]))
    # the flag is what counts: it is up, so the step is approved of and its tensors are let go
    watch.check(None)
    watch.add(2, np.array([2]), _report([float("nan")]))
    watch.train_step.is_finite.fill_(False)
    with pytest.raises(NonFiniteLossError, match="^update 2,"):
        watch.check(None)
