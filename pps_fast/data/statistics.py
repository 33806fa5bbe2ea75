"""Mean and scale of the frames of some videos."""

from __future__ import annotations

import numpy as np
import torch

from pps_fast.data.record import PreparedData


def frame_statistics(data: PreparedData, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of every feature over the segments of the videos of some samples.

    One pass, one video at a time, sums over videos in float64; the same samples give the same bits.

    Args:
        samples: [B] int64, at least one; a video counts once however many of them it has.
    Returns:
        [F] float32 means and [F] float32 standard deviations, 0 for a feature that is constant.
    """
    videos = np.unique(data.sample_video[samples])
    total = torch.zeros(data.features.shape[2], dtype=torch.float64)
    squares = torch.zeros_like(total)
    # deviations from the first segment, so that little is lost where the mean is large beside them
    origin = torch.from_numpy(data.features[videos[0], 0].astype(np.float32))
    for video in videos:
        # torch converts float16 several times faster than numpy
        segments = torch.from_numpy(data.features[video]).float() - origin
        total += segments.sum(dim=0)
        squares += segments.square_().sum(dim=0)
    count = len(videos) * data.features.shape[1]
    mean = total / count
    variance = (squares / count - mean**2).clamp_min(0.0)
    return (origin.double() + mean).float().numpy(), variance.sqrt().float().numpy()
