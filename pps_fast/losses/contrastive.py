"""Intra-video contrastive loss L_ivc. Paper: Section 3, "Losses for reconstruction"."""

from __future__ import annotations

from torch import Tensor

from pps_fast import equations
from pps_fast.config import LossesConfig
from pps_fast.types import ModelOutput


def contrastive(output: ModelOutput, options: LossesConfig) -> Tensor:
    """Hinges: the best positive must beat the whole video and each of its own easy negatives. Scalar."""
    compared = (output.best_nll, output.whole_video_nll, output.negative_nll)
    return equations.contrastive_loss(*compared, options.whole_video_margin, options.negative_margin)
