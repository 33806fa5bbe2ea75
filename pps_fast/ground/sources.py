"""Where a question's videos come from: one array, a file or folder of many, or a file of `prepare`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pps_fast.arrays import load_npy, open_npz
from pps_fast.data.packing import FORMAT
from pps_fast.data.prepared import read_prepared
from pps_fast.hdf5 import open_hdf5
from pps_fast.prepare.readers.annotations import read_durations
from pps_fast.prepare.readers.features import DEFAULT_NPZ_KEY, BadVideo, FeatureReader, open_features
from pps_fast.prepare.readers.problems import Problems
from pps_fast.reading import listed, reading


class Videos:
    """Videos by name, read one at a time; used as a `with` block.

    Args:
        path: an array file (npy, npz), a file or folder that `python -m pps_fast.prepare` reads features from, or one
            that it has written.
        video: the only video to take, None for all.
        durations: csv file with columns id and length, or None.
        duration_s: length of the only video, or None.
        frames_per_second: of the features, from which other lengths follow; None where it is unknown.
    Raises:
        ValueError: for a file that cannot be read, or a video that is not in it.
    """

    def __init__(
        self,
        path: Path,
        *,
        video: str | None = None,
        durations: Path | None = None,
        duration_s: float | None = None,
        frames_per_second: float | None = None,
    ) -> None:
        problems = Problems(skip=False, can_skip=False)
        self._durations = {} if durations is None else read_durations([durations], problems)
        problems.settle()
        self._frames_per_second = frames_per_second
        self._exit = ExitStack()
        self._reader = self._exit.enter_context(self._open(path))
        known = sorted(self._reader.ids())
        if video is not None and video not in known:
            self._exit.close()
            raise ValueError(f"--video {video}: not in {path}, which has {listed(known)}")
        self.names = known if video is None else [video]
        if duration_s is not None and len(self.names) > 1:
            self._exit.close()
            raise ValueError(f"--duration: {path} has {len(self.names):,} videos; name one with --video")
        if duration_s is not None:
            self._durations = {self.names[0]: duration_s}

    def _open(self, path: Path) -> FeatureReader:
        if path.suffix in (".npy", ".npz") and path.is_file():
            return FeatureReader(name=path.name, file_format="array", locate={path.stem: path}, load=_load_array)
        if path.is_file() and _is_prepared(path):
            data = read_prepared(path)
            rows = {name: row for row, name in enumerate(data.video_ids)}
            lengths = {name: float(data.duration_s[row]) for name, row in rows.items()}
            self._durations = {**lengths, **self._durations}
            return FeatureReader(
                name=path.name, file_format="prepared", locate=rows, load=lambda row: data.features[row]
            )
        return open_features(path)

    def __enter__(self) -> Videos:
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, float | None]]:
        """Yields name, features [n, F] and length in seconds or None of every video.

        Raises:
            ValueError: for a video whose features cannot be used.
        """
        for name in self.names:
            try:
                frames = self._reader.read(name)
            except BadVideo as error:
                raise ValueError(f"{self._reader.name}, video {name}: {error}") from error
            length = self._durations.get(name)
            if length is None and self._frames_per_second is not None:
                length = len(frames) / self._frames_per_second
            yield name, frames, length


def _load_array(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return load_npy(path)
    with open_npz(path) as archive:
        name = archive.names[0] if len(archive.names) == 1 else DEFAULT_NPZ_KEY
        if name not in archive.names:
            raise BadVideo(f"has the arrays {listed(archive.names)}, and none is named {name!r}")
        return archive.load(name)


def _is_prepared(path: Path) -> bool:
    with reading(path), open_hdf5(path) as file:
        return bool(file.attrs.get("format") == FORMAT)
