"""Reconstruction loss L_rec. Paper: Section 3, "Losses for reconstruction"."""

from __future__ import annotations

from torch import Tensor

from pps_fast import equations
from pps_fast.types import ModelOutput


def best_and_negative(output: ModelOutput, num_best: int) -> tuple[Tensor, Tensor]:
    """C of the best positives and of the easy negatives of the same proposals, each [B, num_best]."""
    best = equations.best_proposals(output.positive_nll, num_best)
    return output.positive_nll.gather(1, best), output.negative_nll.gather(1, best)


def reconstruction_per_sample(output: ModelOutput, num_best: int) -> Tensor:
    """C(P^(k*)) + C(P_hn) of each sample, [B]."""
    best, _ = best_and_negative(output, num_best)
    return equations.reconstruction_loss(best, output.whole_video_nll)
