"""Several sources of features as one: each frame of each source scaled to length 1, all put side by side.

This is what Moment-DETR, UniVTG and Lighthouse do with CLIP and SlowFast features. All sources have a frame for the
same times; the frames of a longer source beyond the end of the shortest are cut off.

Letters: n frames of a video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from pps_fast.prepare.feature_options import FeatureSource
from pps_fast.prepare.readers.extracted import Told
from pps_fast.prepare.readers.features import FeatureReader, open_features
from pps_fast.prepare.readers.frames import BadVideo

CUT = "videos are cut to the shortest of their sources"
"""what is noticed in a video whose sources differ in length"""
# sources that differ by more, in frames and as a share of the longer one, were not made at the same rate
_MOST_CUT, _MOST_CUT_SHARE = 3, 0.1
JOINING = "frames of each source scaled to length 1, cut to the shortest, side by side"
"""for the record of how features were made"""


@dataclass(kw_only=True)
class JoinedReader:
    """The videos that all of several sources have, as `FeatureReader` gives those of one.

    Attributes:
        readers: of each source, by its name.
        close: ends the reading.
        counts: what was noticed in videos that were read: kind -> number of videos.
        widths: F of each source, as far as it is known.
    """

    readers: dict[str, FeatureReader]
    close: Callable[[], None]
    counts: Counter[str] = field(default_factory=Counter)
    widths: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The names of the sources, for messages."""
        return " + ".join(self.readers)

    @property
    def file_format(self) -> str:
        """The formats of the sources."""
        return " + ".join(reader.file_format for reader in self.readers.values())

    @property
    def told(self) -> Told:
        """The lengths of videos, each as the first source tells it that does."""
        lengths_s: dict[str, float] = {}
        for reader in self.readers.values():
            lengths_s = {**reader.told.lengths_s, **lengths_s}
        return Told(lengths_s=lengths_s)

    def ids(self) -> set[str]:
        """The videos that have features in all sources."""
        return set.intersection(*(reader.ids() for reader in self.readers.values()))

    def lacking(self, video_id: str) -> FeatureReader:
        """Returns the first source that does not have a video."""
        return next(reader for reader in self.readers.values() if video_id not in reader.locate)

    def read(self, video_id: str) -> np.ndarray:
        """Returns the [n, F] float32 features of a video, F the sum of the sources' widths.

        Raises:
            BadVideo: as each source, with its name; and where the sources are not of the same rate.
        """
        parts: dict[str, np.ndarray] = {}
        for name, reader in self.readers.items():
            try:
                parts[name] = reader.read(video_id)
            except BadVideo as error:
                raise BadVideo(f"in the source {name} {error}") from error
            width = self.widths.setdefault(name, parts[name].shape[1])
            if parts[name].shape[1] != width:
                raise BadVideo(
                    f"in the source {name} has features of width {parts[name].shape[1]}, expected {width} as before"
                )
        lengths = {name: len(frames) for name, frames in parts.items()}
        shortest, longest = min(lengths.values()), max(lengths.values())
        if longest - shortest > max(_MOST_CUT, _MOST_CUT_SHARE * longest):
            numbers = ", ".join(f"{count:,} in {name}" for name, count in lengths.items())
            raise BadVideo(f"has {numbers} frames, which are not of the same times; extract all sources at one rate")
        self.counts.update({CUT: 1} if longest > shortest else {})
        return np.concatenate([unit_rows(frames[:shortest]) for frames in parts.values()], axis=1)

    def checks(self) -> dict[str, int]:
        """Returns what was noticed in videos, of each source with its name: kind -> number of videos."""
        counts = dict(self.counts)
        for name, reader in self.readers.items():
            counts |= {f"{kind} in {name}": number for kind, number in reader.counts.items()}
        return counts

    def forget(self) -> None:
        """Counts anew what is noticed."""
        self.counts.clear()
        for reader in self.readers.values():
            reader.forget()

    def __enter__(self) -> JoinedReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


AnyReader = FeatureReader | JoinedReader


def unit_rows(frames: np.ndarray) -> np.ndarray:
    """Returns frames [n, F] divided by their Euclidean lengths, float32; frames of zeros as they are."""
    # a square of float32 may be infinite
    norm = np.sqrt(np.einsum("nf,nf->n", frames, frames, dtype=np.float64))[:, None]
    return (frames / np.where(norm == 0, 1, norm)).astype(np.float32)


def open_sources(sources: Iterable[FeatureSource], asked: Iterable[str] = ()) -> AnyReader:
    """Opens one source as it is, or several as one.

    Args:
        sources: one at least, the names of several differ.
        asked: videos that will be read; they decide between formats.

    Raises:
        ValueError: for a file or folder that cannot be read at all; the message names it.
    """
    sources, asked = list(sources), list(asked)
    if len(sources) == 1:
        return open_source(sources[0], asked)
    with ExitStack() as stack:
        readers = {str(source.name): stack.enter_context(open_source(source, asked)) for source in sources}
        for name, reader in readers.items():
            # by which messages tell it from the others
            reader.name = name
        return JoinedReader(readers=readers, close=stack.pop_all().close)


def open_source(source: FeatureSource, asked: Collection[str] = ()) -> FeatureReader:
    """Opens one source; arguments and errors as `open_sources`."""
    return open_features(
        source.path,
        file_format=source.file_format,
        key=source.key,
        naming=source.naming,
        group=source.group,
        asked=asked,
    )
