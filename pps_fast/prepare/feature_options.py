"""Options that name features: one source or several, and how each of them is read. Importing this loads no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pps_fast.prepare.readers.naming import Naming
from pps_fast.reading import listed

FEATURE_FORMATS = ("hdf5", "hdf5_group", "npy", "npz", "pt")
PLANTED = Path("planted")

# folders of Moment-DETR and Lighthouse, in which each source of a data set's features has its own, and their names
_LAYOUTS = (
    {"slowfast": "slowfast_features", "clip": "clip_features"},
    {"clip": "clip", "slowfast": "slowfast"},
)
_ENDINGS = (".npy", ".npz", ".pt")
# what may stand before the colon of NAME:VALUE
_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
NAMED = ("features_format", "feature_key", "feature_group", "feature_prefix", "feature_suffix", "video_prefix",
          "video_suffix")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Where features are, and how they are read."""

    features: tuple[Path, ...]
    """HDF5 file, or folder with a file for each video. Several as NAME:PATH, or Moment-DETR's or Lighthouse's folder,
    are joined"""
    features_format: tuple[str, ...] = ()
    """format of the features: hdf5, hdf5_group, npy, npz or pt; default: by extension and content. This and the options
    below take NAME:VALUE for one of several sources"""
    feature_key: tuple[str, ...] = ()
    """name of the features within a video's HDF5 group (such as c3d_features), npz or pt file; npz default: features"""
    feature_group: tuple[str, ...] = ()
    """HDF5 group that holds all videos; default: the file itself"""
    feature_prefix: tuple[str, ...] = ()
    """what precedes the video's name in the name of its features: v_ for v_3MSZA.npy"""
    feature_suffix: tuple[str, ...] = ()
    """what follows the video's name in the name of its features: __fps_1 for 3MSZA__fps_1.npz"""
    video_prefix: tuple[str, ...] = ()
    """what precedes the name of the features in the name of the video: v_ where video v_x has features x"""
    video_suffix: tuple[str, ...] = ()
    """what follows the name of the features in the name of the video: .mp4 where video x.mp4 has features x"""

    @property
    def is_planted(self) -> bool:
        """Whether features are made instead of read."""
        return self.features == (PLANTED,)


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """One file or folder of features.

    Attributes:
        name: of the source; None for a single one without.
        path: file or folder.
        file_format: key of FEATURE_READERS, or None to detect it.
        key, group: see the options of these names.
        naming: how its names of videos differ from those of the annotations.
    """

    name: str | None
    path: Path
    file_format: str | None = None
    key: str | None = None
    group: str | None = None
    naming: Naming = Naming()


def sources_of(options: FeatureOptions) -> list[FeatureSource]:
    """Returns the sources that the options name, in their order.

    Raises:
        ValueError: for sources without or with equal names, an unknown format, or a value for a source that is not
            there.
    """
    named = _named_paths(options.features)
    names = [name for name, _ in named if name is not None]
    values = {option: _by_source(option, getattr(options, option), names) for option in NAMED}
    sources = []
    for name, path in named:
        one = {option: of_source.get(name, of_source.get(None)) for option, of_source in values.items()}
        file_format = one["features_format"]
        if file_format not in (None, "auto", *FEATURE_FORMATS):
            raise ValueError(f"--features-format {file_format}: expected auto or {listed(FEATURE_FORMATS)}")
        parts = {part: one[option] or "" for part, option in _NAMING.items()}
        sources.append(
            FeatureSource(
                name=name,
                path=path,
                file_format=None if file_format == "auto" else file_format,
                key=one["feature_key"],
                group=one["feature_group"],
                naming=Naming(**parts),
            )
        )
    return sources


def recorded_options(options: FeatureOptions) -> dict[str, Any]:
    """Returns the values of the options beside the paths: one as it is, several as a list.

    Without a value, those that older versions had are recorded with their default, so that equal input gives equal
    bytes, and the others are not.
    """
    values = {name: getattr(options, name) for name in NAMED}
    set_values = {name: list(value) if len(value) > 1 else value[0] for name, value in values.items() if value}
    return {**_DEFAULTS, **set_values}


_DEFAULTS = {"features_format": "auto", "feature_key": None, "feature_group": None, "feature_suffix": ""}
_NAMING = {
    "prefix": "feature_prefix",
    "suffix": "feature_suffix",
    "video_prefix": "video_prefix",
    "video_suffix": "video_suffix",
}


def split_name(value: str) -> tuple[str | None, str]:
    """Returns name and rest of NAME:REST; no name where there is none, or where a file has that name with its colon."""
    name, colon, rest = value.partition(":")
    if colon and rest and _NAME.fullmatch(name) and not Path(value).exists():
        return name, rest
    return None, value


def _named_paths(features: Sequence[Path]) -> list[tuple[str | None, Path]]:
    split = [split_name(str(path)) for path in features]
    paths = [(name, Path(rest)) for name, rest in split]
    if not paths:
        raise ValueError("--features: none; name a file or folder")
    if len(paths) == 1 and paths[0][0] is None:
        return _layout(paths[0][1]) or paths
    named: list[tuple[str | None, Path]] = [(name or path.stem, path) for name, path in paths]
    twice = [name for index, (name, _) in enumerate(named) if name in [other for other, _ in named[:index]]]
    if twice:
        raise ValueError(f"--features: two sources are named {twice[0]!r}; give each a name of its own, as NAME:PATH")
    return named


def _layout(folder: Path) -> list[tuple[str | None, Path]]:
    """Returns the sources in a folder of one of the known layouts; none where it has features itself."""
    if not folder.is_dir() or any(entry.suffix in _ENDINGS for entry in folder.iterdir()):
        return []
    for layout in _LAYOUTS:
        present = {name: folder / inner for name, inner in layout.items() if (folder / inner).is_dir()}
        if present:
            return list(present.items())
    return []


def _by_source(option: str, values: Sequence[str], names: Sequence[str]) -> dict[str | None, str]:
    """Returns source -> value; None stands for all sources without a value of their own."""
    flag = "--" + option.replace("_", "-")
    by_source: dict[str | None, str] = {}
    for value in values:
        name, colon, rest = value.partition(":")
        if len(names) > 1 and colon and name not in names:
            raise ValueError(f"{flag} {value}: no source is named {name!r}; they are {listed(names)}")
        source, text = (name, rest) if colon and name in names else (None, value)
        if source in by_source:
            whom = "all sources" if source is None else f"the source {source}"
            raise ValueError(f"{flag} {value}: a second value for {whom}, after {by_source[source]}; give one")
        by_source[source] = text
    return by_source
