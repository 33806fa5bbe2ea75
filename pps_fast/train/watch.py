"""Finds the batch behind a loss that is not finite, without synchronizing with the device after every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pps_fast.data.prepared import PreparedData
from pps_fast.train.step import StepReport, TrainStep


class NonFiniteLossError(FloatingPointError):
    """Training met a loss or gradient that is not finite; the message names update, epoch and samples."""


class FiniteWatch:
    """Keeps the reports of the steps since the last check of `TrainStep.is_finite`.

    A late check is safe: neither a step that is not finite nor any step after it changes the model (see `TrainStep`).

    Args:
        train_step: the watched step.
        data: to name videos and sentences.
        steps_per_epoch: to name the epoch.
    """

    def __init__(self, train_step: TrainStep, data: PreparedData, steps_per_epoch: int) -> None:
        self.train_step = train_step
        self.data = data
        self.steps_per_epoch = steps_per_epoch
        self._unchecked: list[tuple[int, np.ndarray, StepReport]] = []

    def add(self, step: int, samples: np.ndarray, report: StepReport) -> None:
        """Remembers update number `step`, counted from 1, on [B] sample indices; keeps the report's tensors."""
        self._unchecked.append((step, samples, report))

    def check(self, last_good: Path | None) -> None:
        """Synchronizes with the device and clears the steps that were finite.

        Args:
            last_good: the latest checkpoint, for the message.

        Raises:
            NonFiniteLossError: for the first step since the last check that was not finite.
        """
        if not self.train_step.is_finite.item():
            step, samples, report = next(item for item in self._unchecked if not item[2].is_finite.item())
            kept = "nothing was saved yet" if last_good is None else f"the last good checkpoint is {last_good}"
            raise NonFiniteLossError(f"{self._describe(step, samples, report)}. The update was not made; {kept}")
        self._unchecked.clear()

    def _describe(self, step: int, samples: np.ndarray, report: StepReport) -> str:
        data, loss = self.data, report.loss
        bad = samples[~torch.isfinite(loss.sample_total).cpu().numpy()]
        named = [f"{i} (video {data.video_ids[data.sample_video[i]]!r}, sentence {data.sentences[i]!r})" for i in bad]
        culprits = f"samples {', '.join(named)}" if named else "no single sample"
        return (
            f"update {step}, epoch {(step - 1) // self.steps_per_epoch + 1}: loss {loss.total.item()}, "
            f"gradient norm {report.grad_norm.item()}; not finite: {culprits}; "
            f"samples of the batch: {', '.join(map(str, samples))}. "
            f"{'Look at the features of these videos' if named else 'Lower train.learning_rate or train.clip_norm'}"
        )
