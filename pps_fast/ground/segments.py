"""A video as the model takes it: one stretch, or overlapping windows of a long video, each resampled to S segments."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from pps_fast.alignment.confidence import Confidence
from pps_fast.files import Note
from pps_fast.prepare.readers.frames import BadVideo, as_float16, checked_frames, require_signal, resample

# a moment shorter than so many segments is hardly seen
_SEGMENTS_OF_A_MOMENT = 3
# of a window, between which a moment can be told from the rest
_LEAST_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """A video that can be asked any number of sentences.

    Attributes:
        name: for answers; None for none.
        duration_s: length in seconds, or None where it is unknown.
        start, end: [n] fractions of the video, the bounds of its windows.
        frames: [n, S, F] its windows, as the model that encoded it takes them.
    """

    name: str | None
    duration_s: float | None
    start: tuple[float, ...]
    end: tuple[float, ...]
    frames: Tensor


def segments_of(
    frames: Any,
    num_segments: int,
    width: int,
    duration_s: float | None,
    segment_seconds: float | None,
    origin: str = "",
) -> tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]:
    """Returns windows of a video resampled as `python -m pps_fast.prepare` does, [n, S, F] float16, and their bounds.

    Args:
        frames: [n, F] features of the video's frames, at equal distances in time.
        num_segments, width: S and F.
        duration_s: length in seconds, or None.
        segment_seconds: length of a window; a longer video is divided into windows that overlap by half at least. None
            takes the video as one.
        origin: what features of that width are, for the message about others.
    Returns:
        The windows, and their starts and ends as fractions of the video.
    Raises:
        ValueError: for features of another form or width, or a window length without the length of the video.
    """
    try:
        checked = checked_frames(np.asarray(frames))
        require_signal(checked)
    except BadVideo as error:
        raise ValueError(f"frames: {error}") from error
    if checked.shape[1] != width:
        raise ValueError(
            f"frames: width {checked.shape[1]}, the model was trained with features of width {width}{origin}; "
            "take the features that it was trained with"
        )
    bounds = window_bounds(len(checked), duration_s, segment_seconds)
    try:
        windows = [as_float16(resample(checked[first:end], num_segments)) for first, end in bounds]
    except BadVideo as error:
        raise ValueError(f"frames: {error}") from error
    count = len(checked)
    return np.stack(windows), tuple(first / count for first, _ in bounds), tuple(end / count for _, end in bounds)


def window_bounds(num_frames: int, duration_s: float | None, segment_seconds: float | None) -> list[tuple[int, int]]:
    """Returns first frame and end of each window; windows are equally long, up to one frame, and cover the video.

    Raises:
        ValueError: for a window length that is not above 0, or without the length of the video.
    """
    if segment_seconds is None:
        return [(0, num_frames)]
    if not segment_seconds > 0:
        raise ValueError(f"segment_seconds = {segment_seconds}: expected seconds above 0")
    if duration_s is None:
        raise ValueError("segment_seconds: the length of the video is unknown; give duration_s too")
    if duration_s <= segment_seconds:
        return [(0, num_frames)]
    length = max(round(num_frames * segment_seconds / duration_s), 1)
    # a step of half a window, or a little less so that the last one ends with the video
    count = 1 + math.ceil((num_frames - length) / max(length / 2, 1))
    starts = np.linspace(0, num_frames - length, count).round().astype(int).tolist()
    return [(first, first + length) for first in starts]


def warn_of_few_rows(num_rows: int, window_share: float) -> None:
    """Says where a window has too few rows of features for a moment to be told from the rest.

    Args:
        num_rows: of the video.
        window_share: part of the video that a window is.
    Warns:
        Note: then.
    """
    rows = num_rows * window_share
    if window_share < 1 and rows < _LEAST_ROWS:
        text = (
            f"a window has {rows:.1f} rows of features, too few to find a moment in; divide the video with "
            f"segment_seconds that give {_LEAST_ROWS} rows or more (--segment-seconds), or make more rows a second"
        )
        warnings.warn(text, Note, stacklevel=3)


def warn_of_long_segments(window_s: float, num_segments: int, confidence: Confidence | None) -> None:
    """Says where a third of a typical moment is shorter than a segment of a window.

    Args:
        window_s: seconds of a window.
        num_segments: into which it is divided.
        confidence: of the model, which knows what is typical, or None.
    Warns:
        Note: then.
    """
    typical_s = None if confidence is None else confidence.median_moment_s
    segment = window_s / num_segments
    if typical_s is None or segment * _SEGMENTS_OF_A_MOMENT <= typical_s:
        return
    better = typical_s / _SEGMENTS_OF_A_MOMENT * num_segments
    text = (
        f"a segment is {segment:.1f} s long, more than a third of {typical_s:.1f} s, the median moment that the "
        f"model reads in its training pairs (it knows no true ones); divide the video with segment_seconds of "
        f"{better:.0f} or less (--segment-seconds)"
    )
    warnings.warn(text, Note, stacklevel=3)
