"""Frames of a video file at chosen times, by the library PyAV (extra `video`); one frame is in memory at a time.

The frame of a time is the one that a player shows: the last one that begins at or before it, whatever the rate is and
however it changes. Frames are turned upright as the file says, and pixels that are not square are made so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pps_fast.reading import FAILURES, Refused, brief, cause_of, one_sentence, require_file, shown

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
MISSING = "needs the libraries of the extra `video`; install them with `pip install 'pps-fast[video]'`"
# formats whose lengths are guessed from the last times in the file, which only some frames have
_GUESSED = ("mpeg",)
# a file may end so much before or behind the length that it tells
_SLACK_S = 1.0


class _Frame(NamedTuple):
    """A decoded frame, and when it is shown."""

    begin_s: float
    length_s: float
    frame: Any


class Video:
    """A video file that is open; made by `open_video`.

    Attributes:
        duration_s: length of its pictures in seconds.
    """

    def __init__(self, container: Any, stream: Any, duration_s: float) -> None:
        self.duration_s = duration_s
        self._container, self._stream = container, stream
        ratio = stream.sample_aspect_ratio
        self._ratio = float(ratio) if ratio and 0.1 < ratio < 10 else 1.0
        # something could not be decoded so far; the longest time between two frames before that
        self._is_damaged, self._longest_s = False, 0.0

    def frames_at(self, times_s: Iterable[float]) -> Iterator[np.ndarray | None]:
        """Yields the [height, width, 3] uint8 RGB frame of each time, None for one that cannot be read.

        Args:
            times_s: seconds from the beginning, in order.
        """
        frames = self._decoded()
        at, following = next(frames, None), next(frames, None)
        picture: np.ndarray | None = None
        for time_s in times_s:
            while following is not None and following.begin_s <= time_s:
                at, following, picture = following, next(frames, None), None
            if at is None or not self._is_shown(at, following, time_s):
                yield None
                continue
            if picture is None:
                picture = upright(at.frame, self._ratio)
            yield picture

    def _is_shown(self, at: _Frame, following: _Frame | None, time_s: float) -> bool:
        """Whether a frame is what belongs to a time, and not the last one before or the first one after damage."""
        if at.frame.is_corrupt or time_s < at.begin_s - _SLACK_S:
            return False
        # a frame lasts until the next one, unless there are some between that could not be decoded
        lasts = following is not None and not self._is_damaged
        return lasts or time_s <= at.begin_s + max(at.length_s, self._longest_s, _SLACK_S)

    def _decoded(self) -> Iterator[_Frame]:
        """Yields all frames that can be decoded, in the order of showing."""
        first, last = None, 0.0
        usual = 1 / float(self._stream.average_rate or 25)
        for frame in self._frames():
            begin = last + usual if frame.time is None else float(frame.time)
            first = _start_of(self._stream, begin) if first is None else first
            length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else usual
            # time never runs backwards, whatever a damaged file says
            begin = max(begin - first, last)
            if not self._is_damaged:
                self._longest_s = max(self._longest_s, begin - last)
            last = begin
            self._is_damaged |= frame.is_corrupt
            yield _Frame(begin, length, frame)

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                decoded = () if packet is None else packet.decode()
            except FAILURES:
                # a packet that is damaged; the next ones may not be
                self._is_damaged = True
                continue
            if packet is None:
                return
            yield from decoded


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Opens a video file for reading.

    Raises:
        ValueError: in one sentence that names the file: it is no video, has sound alone, no frames or no length, or the
            library is not installed.
    """
    av = import_av(str(path))
    require_file(path)
    try:
        # a name with a colon is a file, too, and no protocol
        container = av.open(f"file:{path}", mode="r")
    except FAILURES as error:
        raise ValueError(one_sentence(f"{shown(path)}: {_unopened(error)}")) from error
    with container:
        try:
            stream = _stream_of(container)
            duration_s = _duration_of(container, stream, av, path)
        except FAILURES as error:
            raise ValueError(one_sentence(f"{shown(path)}: {cause_of(error)}")) from error
        # the pictures of one file on several cores
        stream.thread_type = "AUTO"
        yield Video(container, stream, duration_s)


def import_av(what: str) -> Any:
    """Returns the library.

    Raises:
        ValueError: where it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(f"{what}: {MISSING}") from error
    return av


def is_video(path: Path) -> bool:
    """Whether a file has the ending of a video."""
    return path.suffix.lower() in VIDEO_ENDINGS


def videos_in(paths: Sequence[Path]) -> list[Path]:
    """Returns the files that are named, and of a folder those with the ending of a video, without those below it.

    Raises:
        ValueError: for a path that is not there, a folder without videos, or two videos of one name.
    """
    files: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"{shown(path)}: no such file or folder; check the path")
        entries = sorted(path.iterdir()) if path.is_dir() else []
        inside = [file for file in entries if is_video(file) and file.is_file()] if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{shown(path)}: the folder has no video ({', '.join(VIDEO_ENDINGS)}); name another")
        for file in inside:
            other = files.setdefault(file.stem, file)
            if other != file:
                what = f"has the name of {shown(other)}, and a video is known by its name without the ending"
                raise ValueError(f"{shown(file)}: {what}; rename one")
    return list(files.values())


def upright(frame: Any, ratio: float) -> np.ndarray:
    """Returns a decoded frame as [height, width, 3] uint8 RGB, turned as the file says, with square pixels.

    Args:
        ratio: width over height of its pixels.
    """
    width = max(round(frame.width * ratio), 1)
    pixels: np.ndarray = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    # the angle is counterclockwise
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _unopened(error: BaseException) -> str:
    # the library's numbers of its own are beyond those of any system
    if isinstance(error, OSError) and error.errno and error.errno < 1000:
        return cause_of(error)
    said = getattr(error, "strerror", None) or brief(error)
    return f"no video that can be opened ({said}); it is damaged, incomplete or of another kind: fetch it again"


def _stream_of(container: Any) -> Any:
    """Returns the pictures of a file: no cover of its sound."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        kinds = sorted({str(stream.type) for stream in container.streams})
        has = f"has {' and '.join(kinds)} alone" if kinds else "has nothing in it"
        raise Refused(f"no pictures, it {has}; name a video")
    return streams[0]


def _is_cover(stream: Any) -> bool:
    return "attached_pic" in str(stream.disposition).lower()


def _duration_of(container: Any, stream: Any, av: Any, path: Path) -> float:
    """Returns the length of the pictures: as the file tells it, else by looking at the times of all packets."""
    told, is_guessed = None, container.format.name in _GUESSED
    if stream.duration and stream.time_base and not is_guessed:
        told = float(stream.duration * stream.time_base)
    elif container.duration and not is_guessed:
        told = container.duration / av.time_base
    if told is None or not 0 < told < math.inf:
        told = _scanned(av, path)
    if not 0 < told < math.inf:
        raise Refused("has no frames; record or fetch it again")
    return told


def _scanned(av: Any, path: Path) -> float:
    """Returns from the first packet's time to the last one's end, without decoding any; 0 where there is none."""
    first, end = math.inf, -math.inf
    with av.open(f"file:{path}", mode="r") as container:
        stream = _stream_of(container)
        usual = 1 / float(stream.average_rate or 25)
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    begin = float(packet.pts * packet.time_base)
                    length = float(packet.duration * packet.time_base) if packet.duration else usual
                    first, end = min(first, begin), max(end, begin + length)
        except FAILURES:
            # up to there
            pass
    return max(end - first, 0.0)


def _start_of(stream: Any, begin: float) -> float:
    """Returns where time begins: with the stream, or with the first frame of one that tells nothing."""
    if stream.start_time is None or stream.time_base is None:
        return begin
    return float(stream.start_time * stream.time_base)
