"""Video files that are written on the spot, by PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def require_video_extra() -> Any:
    """Returns PyAV, or skips the test."""
    return pytest.importorskip("av", reason="needs the video extra")


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: int = 10,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    **options: str,
) -> Path:
    """Writes RGB frames [height, width, 3] uint8 at a rate, or at times of their own; returns the path."""
    av = require_video_extra()
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=fps)
        clock = Fraction(1, fps if times_ms is None else 1000)
        stream.codec_context.time_base = clock
        stream.options = {"g": "10", **options}
        stream.pix_fmt = "yuv420p"
        for index, pixels in enumerate(frames):
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index if times_ms is None else times_ms[index]
            frame.time_base = clock
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def gray_frames(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Returns frames that tell their number: each is 4 levels of gray brighter than the one before, from 8."""
    return [np.full((*size, 3), 8 + 4 * index, dtype=np.uint8) for index in range(count)]


def number_of(frame: np.ndarray) -> int:
    """Returns the number of one of `gray_frames`."""
    return round((float(frame.mean()) - 8) / 4)


def noisy_frames(count: int, seed: int = 0) -> Iterable[np.ndarray]:
    """Yields frames of noise, which take many bytes: damage to a part of a file is damage to that part of the time."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield random.integers(0, 255, (48, 64, 3), dtype=np.uint8)


def turned(path: Path, out: Path, clockwise: int) -> Path:
    """Writes a copy of an mp4 file that is to be shown turned by 90, 180 or 270 degrees."""
    content = bytearray(path.read_bytes())
    header = content.find(b"tkhd") + 4
    # version 0: version and flags, five numbers, 8 reserved bytes, four short numbers; then the matrix
    at = header + 4 + 20 + 8 + 8
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[clockwise]
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    out.write_bytes(content)
    return out


def spoiled(path: Path, out: Path, start: float, end: float) -> Path:
    """Writes a copy of a file whose bytes between two shares of its length are noise."""
    content = bytearray(path.read_bytes())
    first, last = int(start * len(content)), int(end * len(content))
    content[first:last] = np.random.default_rng(0).bytes(last - first)
    out.write_bytes(content)
    return out


def write_audio(path: Path) -> Path:
    """Writes a file of a second of silence, without pictures."""
    av = require_video_extra()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        for index in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, index * 1024
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
