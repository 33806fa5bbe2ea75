"""Small video files, encoded on the spot (extra `video`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def write_video(path: Path, seconds: float = 8.0, rate: int = 10, size: int = 64) -> Path:
    """Writes a video whose gray level rises from black to white, so that a frame tells its time; returns its path."""
    av = pytest.importorskip("av", reason="needs the video extra")
    codec = "libvpx" if path.suffix == ".webm" else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        # every second can be gone to
        stream.gop_size = rate
        count = round(seconds * rate)
        for index in range(count):
            level = np.full((size, size, 3), round(255 * index / max(count - 1, 1)), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(level, format="rgb24")))
        container.mux(stream.encode())
    return path
