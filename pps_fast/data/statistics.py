"""Mean and scale of the frames of some videos, and how many segments only repeat frames."""

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


# segments are a multiple of this where a number of them is proposed, which suits `reconstructor.stride`
_STEP = 8


def copies_note(num_frames: np.ndarray | None, num_segments: int) -> str | None:
    """Returns a sentence for data of which most videos are stretched to more segments than they have frames, else None.

    Segments that repeat a frame tell a model nothing and cost as much as others.

    Args:
        num_frames: [n] int64 frames of each video before resampling; None where that is not known.
        num_segments: S, to which each video was resampled.
    """
    if num_frames is None or 2 * int((num_frames < num_segments).sum()) <= len(num_frames):
        return None
    median = float(np.median(num_frames))
    proposed = max(_STEP, round(median / _STEP) * _STEP)
    if proposed >= num_segments:
        # most videos lack a frame or two, which does no harm
        return None
    copies = 100 * np.maximum(num_segments - num_frames, 0).sum() / (num_segments * len(num_frames))
    return (
        f"{num_segments} segments are more than most videos have frames (median {median:g}), so that {copies:.0f} % of "
        f"them repeat a frame; prepare with --num-segments {proposed}"
    )
