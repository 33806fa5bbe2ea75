"""Intra-video contrastive loss L_ivc. Paper: Section 3, "Losses for reconstruction"."""

from __future__ import annotations

from torch import Tensor

from pps_fast import equations
from pps_fast.config import LossesConfig
from pps_fast.losses.reconstruction import best_and_negative
from pps_fast.types import ModelOutput


def contrastive(output: ModelOutput, options: LossesConfig) -> Tensor:
    """Two hinges: the best positive must beat the whole video and its own easy negative. Scalar."""
    best, negative = best_and_negative(output, options.num_best)
    return equations.contrastive_loss(
        best, output.whole_video_nll, negative, options.whole_video_margin, options.negative_margin
    )
