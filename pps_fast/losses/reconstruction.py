"""Reconstruction loss L_rec. Paper: Section 3, "Losses for reconstruction"."""

from __future__ import annotations

from torch import Tensor

from pps_fast import equations
from pps_fast.types import ModelOutput


def reconstruction_per_sample(output: ModelOutput) -> Tensor:
    """C(P^(k*)) + C(P_hn) of each sample, [B]."""
    return equations.reconstruction_loss(output.best_nll, output.whole_video_nll)
