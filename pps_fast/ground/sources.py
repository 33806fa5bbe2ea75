"""Where a question's videos come from: one array, a file or folder of many, or a file of `prepare`; or several of these
as sources of the same videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pps_fast.arrays import load_npy, open_npz
from pps_fast.data.packing import FORMAT
from pps_fast.data.prepared import read_prepared
from pps_fast.hdf5 import open_hdf5
from pps_fast.prepare.feature_options import FeatureSource
from pps_fast.prepare.readers.annotations import read_durations
from pps_fast.prepare.readers.features import DEFAULT_NPZ_KEY, FeatureReader
from pps_fast.prepare.readers.frames import BadVideo
from pps_fast.prepare.readers.joined import AnyReader, JoinedReader, open_source
from pps_fast.prepare.readers.naming import hint
from pps_fast.prepare.readers.problems import Problems
from pps_fast.reading import listed, reading


class Videos:
    """Videos by name, read one at a time; used as a `with` block.

    Args:
        sources: each an array file (npy, npz), a file or folder that `python -m pps_fast.prepare` reads features from,
            or one that it has written; several are joined as there, and arrays are then of one video.
        video: the only video to take, None for all.
        durations: csv file with columns id and length, or None.
        duration_s: length of the only video, or None.
        frames_per_second: of the features, from which other lengths follow; None where it is unknown.
    Attributes:
        names: of the videos.
        recipes: how the features of each source were made, None where its file does not tell.
    Raises:
        ValueError: for a file that cannot be read, or a video that is not in it.
    """

    def __init__(
        self,
        sources: Sequence[FeatureSource],
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
        self._prepared_recipes: list[dict[str, Any] | None] = []
        with ExitStack() as stack:
            self._reader = self._open(sources)
            self.recipes = self._told_recipes()
            stack.callback(self._reader.close)
            self._durations = {**self._reader.told.lengths_s, **self._durations}
            self.names = self._chosen(video)
            if duration_s is not None and len(self.names) > 1:
                raise ValueError(
                    f"--duration: {self._reader.name} has {len(self.names):,} videos; name one with --video"
                )
            if duration_s is not None:
                self._durations = {self.names[0]: duration_s}
            self._exit = stack.pop_all()

    def _told_recipes(self) -> list[dict[str, Any] | None]:
        """Returns how each source was made; of a file of `prepare` with several, these."""
        if isinstance(self._reader, JoinedReader):
            return [reader.told.recipe for reader in self._reader.readers.values()]
        return self._prepared_recipes or [self._reader.told.recipe]

    def _chosen(self, video: str | None) -> list[str]:
        known = sorted(self._reader.ids())
        if video is None:
            if not known:
                raise ValueError(f"{self._reader.name}: no video; {_no_common_video(self._reader)}")
            return known
        if video not in known:
            remedy = hint([video], known)
            pass_it = "" if remedy is None else f"; pass {remedy}"
            raise ValueError(f"--video {video}: not in {self._reader.name}, which has {listed(known)}{pass_it}")
        return [video]

    def _open(self, sources: Sequence[FeatureSource]) -> AnyReader:
        if len(sources) == 1:
            return self._open_one(sources[0], sources[0].path.stem)
        # files of one array each belong to the same video, whatever their names
        name = sources[0].path.stem
        with ExitStack() as stack:
            readers = {
                str(source.name): stack.enter_context(self._open_one(source, name, source.name)) for source in sources
            }
            return JoinedReader(readers=readers, close=stack.pop_all().close)

    def _open_one(self, source: FeatureSource, video: str, name: str | None = None) -> FeatureReader:
        path = source.path
        if path.suffix in (".npy", ".npz") and path.is_file():
            load = partial(_load_array, source.key)
            return FeatureReader(name=name or path.name, file_format="array", locate={video: path}, load=load)
        if path.is_file() and _is_prepared(path):
            # one video at a time is read
            data = read_prepared(path, copies=0)
            rows = {name: row for row, name in enumerate(data.video_ids)}
            lengths = {name: float(data.duration_s[row]) for name, row in rows.items()}
            self._prepared_recipes = [each.get("extraction") for each in (data.recipe or {}).get("sources", [])]
            self._durations = {**lengths, **self._durations}
            return FeatureReader(
                name=name or path.name, file_format="prepared", locate=rows, load=lambda row: data.features[row]
            )
        reader = open_source(source)
        reader.name = name or reader.name
        return reader

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


def _no_common_video(reader: AnyReader) -> str:
    """Returns what to do where there is no video, or none that all sources have."""
    if not isinstance(reader, JoinedReader):
        return "name another file or folder"
    first, second, *_ = reader.readers.values()
    remedy = hint(sorted(first.locate), second.locate, f"{second.name}:")
    has = f"{first.name} has {listed(sorted(first.locate), 3)}, {second.name} has {listed(sorted(second.locate), 3)}"
    return f"{has}; pass {remedy or 'what differs in their names, as with --feature-suffix'}"


def _load_array(wanted: str | None, path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return load_npy(path)
    with open_npz(path) as archive:
        name = wanted or (archive.names[0] if len(archive.names) == 1 else DEFAULT_NPZ_KEY)
        if name not in archive.names:
            raise BadVideo(
                f"has the arrays {listed(archive.names)}, and none is named {name!r}; name one with --feature-key"
            )
        return archive.load(name)


def _is_prepared(path: Path) -> bool:
    with reading(path), open_hdf5(path) as file:
        return bool(file.attrs.get("format") == FORMAT)
