"""Features of one video: n equal parts of it, the frame in the middle of each (or a short clip around that), encoded.

A part is as close to 1 / fps seconds as a whole number of parts allows, so that the rows cover the video exactly.

Letters: n rows, w width of a row, k frames of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pps_fast.features.decode import Video, open_video
from pps_fast.features.encoders import FrameEncoder
from pps_fast.machine import require_memory
from pps_fast.prepare.readers.frames import BadVideo, require_signal
from pps_fast.reading import reading, shown

BATCH = 32
"""rows that are encoded at once"""
LEAST_READABLE = 0.9
"""share of a video that has to be readable, or the video is refused"""
_SAMPLING = "frame in the middle of each of round(seconds * fps) equal parts"
_FLOAT32 = 4


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """Features of a video.

    Attributes:
        features: [n, w] float32.
        duration_s: length of the video in seconds.
        note: what is wrong with the video although it was kept, None where nothing is.
    """

    features: np.ndarray
    duration_s: float
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """How features are made of videos.

    Attributes:
        encoder: of frames.
        fps: rows for a second of video.
        readable: least share of a video's rows that has to be readable.
        batch: rows that are encoded at once.
    """

    encoder: FrameEncoder
    fps: float
    readable: float = LEAST_READABLE
    batch: int = BATCH

    @property
    def recipe(self) -> dict[str, Any]:
        """JSON-able, what the features depend on besides the video; equal for features that go together."""
        encoder = self.encoder
        clip = {"clip_frames": encoder.frames, "clip_span_s": encoder.span_s} if encoder.frames > 1 else {}
        record = {"encoder": encoder.name, "fps": self.fps, "width": encoder.width, **clip, **encoder.record}
        return {**record, "sampling": _SAMPLING}

    def extract(self, path: Path, on_rows: Callable[[int], None] = lambda count: None) -> Extracted:
        """Reads and encodes a video, a batch of rows at a time.

        Args:
            path: video file.
            on_rows: is told how many more rows are done.
        Raises:
            ValueError: in one sentence that names the file, for one that is no video or of which too little can be
                read.
        """
        with open_video(path) as video:
            times = row_times(video.duration_s, self.fps, self.encoder)
            with reading(path):
                size = len(times) * self.encoder.width * _FLOAT32
                require_memory(2 * size, f"{len(times):,} rows of features, which", "lower --fps")
            features = np.zeros((len(times), self.encoder.width), dtype=np.float32)
            is_read = np.zeros(len(times), dtype=bool)
            rows: list[tuple[int, list[np.ndarray]]] = []
            for row in self._rows(video, times):
                rows.append(row)
                if len(rows) == self.batch:
                    self._encode(rows, features, is_read)
                    on_rows(len(rows))
                    rows = []
            self._encode(rows, features, is_read)
            on_rows(len(rows))
        note = self._judged(path, is_read, video.duration_s)
        with reading(path):
            try:
                require_signal(features)
            except BadVideo as error:
                raise ValueError(f"{shown(path)}: its features have nothing in them ({error})") from error
        return Extracted(features=filled(features, is_read), duration_s=video.duration_s, note=note)

    def _rows(self, video: Video, times: np.ndarray) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yields every readable row with its k prepared frames, as soon as the last of these is there.

        Frames that several clips share are prepared once.
        """
        flat = times.ravel()
        order = np.argsort(flat, kind="stable")
        waiting: dict[int, dict[int, np.ndarray]] = {}
        shown_frame, prepared = None, None
        for place, frame in zip(order.tolist(), video.frames_at(flat[order].tolist()), strict=True):
            row, number = divmod(place, times.shape[1])
            if frame is not None and frame is not shown_frame:
                shown_frame, prepared = frame, self.encoder.prepare(frame)
            frames = waiting.setdefault(row, {})
            if frame is not None and prepared is not None:
                frames[number] = prepared
            if number == times.shape[1] - 1:
                del waiting[row]
                if len(frames) == times.shape[1]:
                    yield row, [frames[index] for index in range(times.shape[1])]

    def _encode(self, rows: list[tuple[int, list[np.ndarray]]], features: np.ndarray, is_read: np.ndarray) -> None:
        if rows:
            index = [row for row, _ in rows]
            features[index] = self.encoder.run([frames for _, frames in rows])
            is_read[index] = True

    def _judged(self, path: Path, is_read: np.ndarray, duration_s: float) -> str | None:
        """Returns what is to be told about a video that is not readable throughout.

        Raises:
            ValueError: for one of which too little is.
        """
        share = float(is_read.mean())
        if share == 1.0:
            return None
        seconds = duration_s / len(is_read)
        missing = np.flatnonzero(~is_read)
        what = f"damaged: {100 * share:.0f} % of its {duration_s:.1f} s can be read"
        what += f" (the first gap begins at {missing[0] * seconds:.1f} s)"
        if not is_read.any():
            raise ValueError(f"{shown(path)}: damaged: none of its {duration_s:.1f} s can be read; fetch it again")
        if share < self.readable:
            least = f"less than {100 * self.readable:.0f} %; fetch it again, or keep it with"
            raise ValueError(f"{shown(path)}: {what}, {least} --readable {math.floor(100 * share) / 100:g}")
        return f"{shown(path)}: {what}; its other rows repeat those before them"


def row_times(duration_s: float, fps: float, encoder: FrameEncoder) -> np.ndarray:
    """Returns the [n, k] seconds of the frames of each row, increasing along both axes."""
    count = max(round(duration_s * fps), 1)
    middle = (np.arange(count) + 0.5) * duration_s / count
    offset = (np.arange(encoder.frames) + 0.5) / encoder.frames * encoder.span_s - encoder.span_s / 2
    times: np.ndarray = np.clip(middle[:, None] + offset, 0.0, duration_s)
    return times


def filled(features: np.ndarray, is_read: np.ndarray) -> np.ndarray:
    """Returns features [n, w] whose unread rows repeat the read one before, at the beginning the first one.

    Args:
        is_read: [n] bool, one at least true.
    """
    source = np.maximum.accumulate(np.where(is_read, np.arange(len(is_read)), -1))
    source[source < 0] = int(is_read.argmax())
    return features[source]
