"""Finds the batch behind a loss that is not finite, without synchronizing with the device after every step."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from pps_fast.data.prepared import PreparedData
from pps_fast.files import Note
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
        # read only at the end, because reading waits for the device
        self._first: StepReport | None = None
        self._latest: StepReport | None = None

    def add(self, step: int, samples: np.ndarray, report: StepReport) -> None:
        """Remembers update number `step`, counted from 1, on [B] sample indices; keeps the report's tensors."""
        self._first, self._latest = self._first or report, report
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

    def warn_if_diverged(self) -> None:
        """Warns of a loss that has grown out of all proportion since the first step; synchronizes with the device.

        Warns:
            Note: see `diverged`.
        """
        if self._first is not None and self._latest is not None:
            text = diverged(self._first.loss.total.item(), self._latest.loss.total.item())
            if text is not None:
                warnings.warn(Note(text), stacklevel=2)

    def _describe(self, step: int, samples: np.ndarray, report: StepReport) -> str:
        loss = report.loss
        bad = samples[~torch.isfinite(loss.sample_total).cpu().numpy()]
        named = [f"{index} ({self._name(index)})" for index in bad]
        culprits = f"samples {_some(named, 3)}" if named else "no single sample"
        return (
            f"update {step}, epoch {(step - 1) // self.steps_per_epoch + 1}: loss {loss.total.item()}, "
            f"gradient norm {report.grad_norm.item()}; not finite: {culprits}; "
            f"samples of the batch: {_some([str(index) for index in samples], 32)}. {self._remedy(bad)}"
        )

    def _name(self, sample: int) -> str:
        data = self.data
        sentence = data.sentences[sample]
        short = sentence if len(sentence) <= 60 else f"{sentence[:60]}..."
        return f"video {data.video_ids[data.sample_video[sample]]!r}, sentence {short!r}"

    def _remedy(self, bad: np.ndarray) -> str:
        """Returns what to do about [n] bad samples."""
        features = self.data.features[self.data.sample_video[bad]]
        if not np.isfinite(features).all():
            return "Look at the features of these videos, which are not finite"
        return (
            "The features are finite, so that the updates were probably too large: lower train.learning_rate or "
            "train.clip_norm, or lengthen train.warmup_updates"
        )


def _some(names: list[str], most: int) -> str:
    """Returns the first names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def diverged(first: float, last: float) -> str | None:
    """Returns a sentence about a loss that has risen tenfold without leaving the finite numbers, else None.

    Args:
        first, last: losses of two batches, of which the second was trained on later.
    """
    if last <= 10 * max(abs(first), 1.0):
        return None
    return (
        f"the loss rose from {first:.4g} to {last:.4g}: the training has diverged, and the model has learned nothing; "
        "lower train.learning_rate or train.clip_norm, or lengthen train.warmup_updates"
    )
