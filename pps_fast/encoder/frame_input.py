"""Features as the embedding takes them: as they are, centered, or standardized by the run's own training videos.

Features of a frozen encoder have a mean that is large beside what differs between frames, so that all frames look
alike to a network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import FrameInput


class RawFrames(nn.Module):
    """Takes features as they are; without buffers, so that models are saved as before there was a choice.

    Args:
        frame_dim: F, the width of a feature vector.
    """

    def __init__(self, frame_dim: int) -> None:
        super().__init__()

    def take(self, mean: Tensor, scale: Tensor) -> None:
        """Needs no statistics."""

    def forward(self, frames: Tensor) -> Tensor:
        """Returns frames [B, S, F] unchanged."""
        return frames


class CenteredFrames(RawFrames):
    """Takes features less their mean over the training videos.

    Mean and standard deviation are buffers, [F] each; a model folder keeps them in statistics.safetensors.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, frame_dim: int) -> None:
        super().__init__(frame_dim)
        self.register_buffer("mean", torch.zeros(frame_dim))
        self.register_buffer("scale", torch.ones(frame_dim))

    def take(self, mean: Tensor, scale: Tensor) -> None:
        """Takes over mean and standard deviation of every feature, [F] each, in place."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, frames: Tensor) -> Tensor:
        """Returns frames [B, S, F] less the mean."""
        return frames - self.mean.to(frames.dtype)


class StandardizedFrames(CenteredFrames):
    """Takes features less their mean, over their standard deviation; a feature that is constant becomes 0."""

    def forward(self, frames: Tensor) -> Tensor:
        """Returns (frames - mean) / scale, [B, S, F]."""
        divisor = self.scale.masked_fill(self.scale == 0, 1.0)
        return super().forward(frames) / divisor.to(frames.dtype)


FRAME_INPUTS: dict[FrameInput, type[RawFrames]] = {
    "raw": RawFrames,
    "centered": CenteredFrames,
    "standardized": StandardizedFrames,
}
"""by the strings of `config.FrameInput`"""
