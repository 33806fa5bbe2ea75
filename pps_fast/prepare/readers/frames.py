"""The frames of one video: what is accepted, and their resampling to a fixed number of segments."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pps_fast.machine import require_memory

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
# half the smallest float16 above zero; what is not larger rounds to zero
VANISHING = float(np.finfo(np.float16).smallest_subnormal) / 2
# the share of a video's values from which on the report says that they vanish
_MANY_VANISH = 0.01
# larger arrays are checked against the free memory before they are converted
_ALWAYS_READ = 64 << 20
# the worst case of the conversion: which values are finite, and copies in float32 and float64
_MEMORY_PER_VALUE = 13


class BadVideo(ValueError):
    """The features of one video cannot be used; the message says why, without naming the file or the video."""


def checked_frames(array: np.ndarray) -> np.ndarray:
    """Returns features as [n, F] float32, axes of size 1 between the first and the last removed.

    Raises:
        BadVideo: when that is not their form, there are no frames, or a value is NaN or infinite.
    """
    shape = array.shape
    if array.dtype.kind not in "fiu":
        raise BadVideo(f"has dtype {array.dtype}, expected numbers")
    if len(shape) < 2 or any(size != 1 for size in shape[1:-1]):
        raise BadVideo(f"has shape {list(shape)}, expected [frames, width]")
    if shape[0] == 0 or shape[-1] == 0:
        raise BadVideo(f"has shape {list(shape)}, that is no frames")
    if array.size > _ALWAYS_READ:
        require_memory(array.size * _MEMORY_PER_VALUE, f"has shape {list(shape)}, which")
    frames = array.reshape(shape[0], shape[-1])
    bad = ~np.isfinite(frames)
    if bad.any():
        raise BadVideo(f"has {int(bad.sum())} NaN or infinite values, the first in frame {int(bad.any(1).argmax())}")
    # a float64 beyond float32 becomes infinite here and is refused when it meets float16
    with np.errstate(over="ignore"):
        return frames.astype(np.float32)


def require_signal(frames: np.ndarray) -> Counter[str]:
    """Refuses frames of which float16 keeps nothing; counts what else looks lost.

    Args:
        frames: [n, F] float32, finite.

    Returns:
        What the report says about the video: kind -> 1, or nothing.

    Raises:
        BadVideo: when all values are zero, or become zero in float16.
    """
    size = np.abs(frames)
    largest = float(size.max())
    if largest == 0:
        raise BadVideo("has only zeros: its features were never written; extract them again")
    if largest <= VANISHING:
        raise BadVideo(f"has no value above {largest:.2g}, which all become zero in float16; scale it up")
    kinds = Counter[str]()
    if not frames[-1].any():
        kinds["videos end in frames of zeros"] += 1
    if not size.any(axis=1)[0]:
        kinds["videos begin with frames of zeros"] += 1
    if ((size > 0) & (size <= VANISHING)).mean() > _MANY_VANISH:
        kinds["videos have values that become zero in float16"] += 1
    return kinds


def segment_edges(num_frames: int, num_segments: int) -> np.ndarray:
    """Returns the [num_segments + 1] int64 first frames of the segments, the last one the end.

    Edge j is j * num_frames / num_segments rounded half to even, at most num_frames - 1.
    """
    # the published code divides first; at exact halves the order of the two operations decides the rounding
    edges = np.round(np.arange(num_segments + 1) / num_segments * num_frames).astype(np.int64)
    return np.minimum(edges, num_frames - 1)


def resample(frames: np.ndarray, num_segments: int) -> np.ndarray:
    """Averages the frames of a video into segments of equal length.

    Segment j is the mean of the frames from edge j up to, not including, edge j + 1, or the frame at edge j where
    that is none. A video of fewer frames than segments so repeats frames; of a longer one the last frame is not used.

    Args:
        frames: [n, F] features, n >= 1.

    Returns:
        [num_segments, F] float64.
    """
    edges = segment_edges(len(frames), num_segments)
    # reduceat gives the single frame at an edge whose successor is not larger, and the tail after the last edge
    sums = np.add.reduceat(frames, edges, axis=0, dtype=np.float64)[:-1]
    return sums / np.maximum(np.diff(edges), 1)[:, None]


def as_float16(segments: np.ndarray) -> np.ndarray:
    """Rounds to float16.

    Raises:
        BadVideo: when a value is beyond float16.
    """
    # without the copy that np.abs would make
    largest = float(max(segments.max(), -segments.min()))
    if largest > LARGEST_FLOAT16:
        raise BadVideo(f"has the value {largest:.4g}, beyond the float16 range of {LARGEST_FLOAT16:.0f}; scale it down")
    return segments.astype(np.float16)
