"""Listens to the reconstructor's passes: which masks go through the stacks, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from pps_fast.model import PPS
from pps_fast.reconstructor import plain, shared
from pps_fast.types import MaskSet, Reconstruction, ReconstructorInput


@dataclass(frozen=True)
class Pass:
    """One pass of masks through the reconstructor.

    Attributes:
        inputs, masks: what it was given.
        is_summary: whether only the row of q_cls was wanted.
        has_gradients: whether gradients were recorded.
    """

    inputs: ReconstructorInput
    masks: MaskSet
    is_summary: bool
    has_gradients: bool


def record_passes(monkeypatch: pytest.MonkeyPatch) -> list[Pass]:
    """Returns a list that grows with every pass of either schedule."""
    passes: list[Pass] = []
    for schedule in (plain, shared):
        monkeypatch.setattr(schedule, "features", _recording(schedule, passes))
    return passes


def _recording(schedule: ModuleType, passes: list[Pass]) -> Any:
    original = schedule.features

    def features(layers: Any, inputs: ReconstructorInput, masks: MaskSet, row: Tensor | None = None) -> Tensor:
        passes.append(Pass(inputs, masks, row is not None, torch.is_grad_enabled()))
        return original(layers, inputs, masks, row)

    return features


def record_reconstructions(model: PPS) -> list[Reconstruction]:
    """Returns a list that grows with what every scoring pass of a model predicts."""
    results: list[Reconstruction] = []
    vocabulary = model.reconstruct.vocabulary
    original = vocabulary.reconstruct

    def reconstruct(*inputs: Any) -> Reconstruction:
        results.append(original(*inputs))
        return results[-1]

    vocabulary.reconstruct = reconstruct
    return results
