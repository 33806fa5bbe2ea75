"""Mean and scale of the frames of some videos."""

from __future__ import annotations

import numpy as np

from pps_fast.data.record import PreparedData


def frame_statistics(data: PreparedData, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of every feature over the segments of the videos of some samples.

    One pass in float64, one video at a time; the same samples give the same bits.

    Args:
        samples: [B] int64, at least one; a video counts once however many of them it has.
    Returns:
        [F] float32 means and [F] float32 standard deviations, 0 for a feature that is constant.
    """
    videos = np.unique(data.sample_video[samples])
    total = np.zeros(data.features.shape[2])
    squares = np.zeros_like(total)
    # deviations from the first segment, so that little is lost where the mean is large beside them
    origin = data.features[videos[0], 0].astype(np.float64)
    for video in videos:
        segments = data.features[video] - origin
        total += segments.sum(axis=0)
        squares += np.square(segments).sum(axis=0)
    count = len(videos) * data.features.shape[1]
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    return (origin + mean).astype(np.float32), np.sqrt(variance).astype(np.float32)
