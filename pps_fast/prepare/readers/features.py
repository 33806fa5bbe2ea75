"""Feature files: readers of the field's forms. A video's name in a file may differ from its own, see `Naming`.

    hdf5        file[video] is [n, F]
    hdf5_group  file[video][key] is [n, F], for instance key c3d_features
    npy         folder/{video}.npy is [n, F], or [n, 1, 1, F]
    npz         folder/{video}.npz, entry key (default "features")
    pt          folder/{video}.pt, one tensor; read with weights_only, so it cannot run code

Every reader is made by `open_features` and closed by leaving its `with` block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pps_fast.arrays import load_npy, open_npz
from pps_fast.hdf5 import inside, open_hdf5, plain_dataset, require_plausible_size
from pps_fast.prepare.readers.extracted import Told, told_in
from pps_fast.prepare.readers.frames import BadVideo, checked_frames, require_signal
from pps_fast.prepare.readers.naming import SAME_NAMES, Naming
from pps_fast.reading import FAILURES, cause_of, listed, reading, shown
from pps_fast.torch_files import load_plain

DEFAULT_NPZ_KEY = "features"


@dataclass(kw_only=True)
class FeatureReader:
    """Features of many videos behind one interface.

    Attributes:
        name: file or folder name, for messages.
        file_format: key of FEATURE_READERS.
        locate: video -> whatever `load` takes.
        load: takes what `locate` gives, returns an array of any shape and dtype.
        close: ends the reading.
        counts: what was noticed in videos that were read, for the report: kind -> number of videos.
        told: what the file tells besides, where it is one of `python -m pps_fast.features`.
    """

    name: str
    file_format: str
    locate: dict[str, Any]
    load: Callable[[Any], np.ndarray]
    close: Callable[[], None] = field(default=lambda: None)
    counts: Counter[str] = field(default_factory=Counter)
    told: Told = field(default_factory=Told)

    def ids(self) -> set[str]:
        """The videos that have features."""
        return set(self.locate)

    def lacking(self, video_id: str) -> FeatureReader:
        """Returns the source that does not have a video: this one."""
        return self

    def read(self, video_id: str) -> np.ndarray:
        """Returns the [n, F] float32 features of a video, n >= 1, all finite, not all zero.

        Raises:
            BadVideo: for a file that cannot be read, no frames, another shape, NaN, infinite values or nothing but
                zeros; with the true cause.
            KeyError: for a video without features.
        """
        location = self.locate[video_id]
        try:
            frames = checked_frames(self.load(location))
            self.counts.update(require_signal(frames))
        except BadVideo:
            raise
        except FAILURES as error:
            raise BadVideo(cause_of(error)) from error
        return frames

    def forget(self) -> None:
        """Counts anew what is noticed."""
        self.counts.clear()

    def __enter__(self) -> FeatureReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the features of a video stand, see `open_features`."""

    path: Path
    key: str | None = None
    naming: Naming = SAME_NAMES
    group: str | None = None
    asked: Collection[str] = ()


def _hdf5(place: Place) -> FeatureReader:
    file = open_hdf5(place.path)
    videos = _videos_of(file, place)
    return FeatureReader(
        name=place.path.name,
        file_format="hdf5",
        locate=place.naming.by_video(videos),
        load=lambda name: _frames_of(videos, name),
        close=file.close,
        told=told_in(file, place.naming),
    )


def _hdf5_group(place: Place) -> FeatureReader:
    file = open_hdf5(place.path)
    videos = _videos_of(file, place)
    try:
        key = place.key or _only_entry(videos, place)
    except ValueError:
        file.close()
        raise

    def load(name: str) -> np.ndarray:
        group = inside(videos, name)
        if not isinstance(group, h5py.Group) or key not in group:
            entries = listed(group) if isinstance(group, h5py.Group) else "no group"
            raise BadVideo(f"has no data set {key!r} (it has {entries}); name one with --feature-key")
        return _frames_of(group, key)

    return FeatureReader(
        name=place.path.name,
        file_format="hdf5_group",
        locate=place.naming.by_video(videos),
        load=load,
        close=file.close,
    )


def _frames_of(parent: h5py.Group, name: str) -> np.ndarray:
    dataset = plain_dataset(parent, name)
    # before they are read: texts of any length would be followed
    if dataset.dtype.kind not in "fiu":
        raise BadVideo(f"has dtype {dataset.dtype}, expected numbers")
    require_plausible_size(dataset)
    return dataset[()]


def _videos_of(file: h5py.File, place: Place) -> h5py.Group:
    """Returns the group that holds the videos: the file, or what --feature-group names."""
    if place.group is None:
        return file
    with reading(place.path):
        try:
            group = inside(file, place.group)
        except KeyError:
            group = None
        if not isinstance(group, h5py.Group):
            raise ValueError(
                f"{shown(place.path)}: has no group {place.group!r}; it holds {listed(file)}; correct --feature-group"
            )
        return group


def _entry(videos: h5py.Group, place: Place) -> tuple[str, Any] | None:
    """Returns name and content of an entry that is asked for, else of the first, or None in an empty file."""
    names = place.naming.by_video(videos)
    wanted = next((names[video] for video in place.asked if video in names), None) or next(iter(videos), None)
    if wanted is None:
        return None
    with reading(place.path):
        try:
            return wanted, inside(videos, wanted)
        except KeyError:
            raise ValueError(f"{shown(place.path)}: {wanted!r} is a link to nothing; store the data itself") from None


def _only_entry(videos: h5py.Group, place: Place) -> str:
    name, content = _entry(videos, place) or ("", None)
    entries = list(content) if isinstance(content, h5py.Group) else []
    if len(entries) == 1:
        return entries[0]
    where = f"{shown(place.path)}: the group {name!r}" if entries else f"{shown(place.path)}: the group of a video"
    if place.naming.by_video(entries).keys() & set(place.asked):
        holds = f"holds {len(entries):,} videos"
        raise ValueError(f"{where} {holds}; pass --feature-group {name}")
    remedy = "name the features with --feature-key"
    if len(videos) == 1 and entries:
        remedy += f", or pass --feature-group {name} if these are videos"
    raise ValueError(f"{where} holds {listed(entries) or 'no data sets'}; {remedy}")


def _folder(place: Place, extension: str) -> dict[str, Path]:
    with reading(place.path):
        if not place.path.is_dir():
            raise ValueError(
                f"{place.path}: expected a folder of {extension} files; name the folder or another --features-format"
            )
        files = [file for file in sorted(place.path.iterdir()) if file.name.endswith(extension)]
    names = {file.name.removesuffix(extension): file for file in files}
    return {video: names[name] for video, name in place.naming.by_video(names).items()}


def _npy(place: Place) -> FeatureReader:
    return FeatureReader(name=place.path.name, file_format="npy", locate=_folder(place, ".npy"), load=load_npy)


def _npz(place: Place) -> FeatureReader:
    def load(file: Path) -> np.ndarray:
        wanted = place.key or DEFAULT_NPZ_KEY
        with open_npz(file) as archive:
            if wanted not in archive.names:
                entries = listed(archive.names)
                raise BadVideo(f"has no entry {wanted!r} (it has {entries}); name one with --feature-key")
            return archive.load(wanted)

    return FeatureReader(name=place.path.name, file_format="npz", locate=_folder(place, ".npz"), load=load)


def _pt(place: Place) -> FeatureReader:
    def load(file: Path) -> np.ndarray:
        content = load_plain(file)
        tensor = content.get(place.key) if isinstance(content, dict) else content
        if not isinstance(tensor, torch.Tensor):
            entries = f" of {listed(content)}" if isinstance(content, dict) else ""
            raise BadVideo(f"holds a {type(content).__name__}{entries}, not a tensor; name one with --feature-key")
        if tensor.layout != torch.strided or tensor.is_complex():
            raise BadVideo(f"holds a tensor of {tensor.dtype}, {tensor.layout}; store dense real numbers")
        # strides of zero make a tensor of any size from one number
        if tensor.numel() > max(tensor.untyped_storage().nbytes(), 1):
            raise BadVideo(f"has shape {list(tensor.shape)}, more values than it stores; store it as it is")
        # a tensor that was saved within a training may want a gradient
        return tensor.detach().float().numpy()

    return FeatureReader(name=place.path.name, file_format="pt", locate=_folder(place, ".pt"), load=load)


FEATURE_READERS: dict[str, Callable[[Place], FeatureReader]] = {
    "hdf5": _hdf5,
    "hdf5_group": _hdf5_group,
    "npy": _npy,
    "npz": _npz,
    "pt": _pt,
}


def detect_features_format(
    path: Path, *, naming: Naming = SAME_NAMES, group: str | None = None, asked: Collection[str] = ()
) -> str:
    """Names the format of a feature file (from an entry that is asked for) or folder (from the extension of its files).

    Raises:
        ValueError: for a missing or empty path, or a folder without a known extension.
    """
    place = Place(path=path, naming=naming, group=group, asked=asked)
    with reading(path):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder; check the path")
        if path.is_dir():
            suffixes = {file.suffix for file in path.iterdir()} & {".npy", ".npz", ".pt"}
            if len(suffixes) == 1:
                return suffixes.pop().removeprefix(".")
            names = listed(sorted(suffixes)) or "no .npy, .npz or .pt files"
            raise ValueError(f"{path}: the folder holds {names}; name the format with --features-format")
        with open_hdf5(path) as file:
            entry = _entry(_videos_of(file, place), place)
            if entry is None:
                raise ValueError(f"{path}: an HDF5 file without any video; name the right file")
            return "hdf5_group" if isinstance(entry[1], h5py.Group) else "hdf5"


def open_features(
    path: Path,
    *,
    file_format: str | None = None,
    key: str | None = None,
    naming: Naming = SAME_NAMES,
    group: str | None = None,
    asked: Collection[str] = (),
) -> FeatureReader:
    """Opens a feature file or folder; see the top of this file for the formats.

    Args:
        path: HDF5 file, or folder with one file per video.
        file_format: key of FEATURE_READERS; None to detect it.
        key: entry inside a video's group or file.
        naming, group: how names of videos differ; HDF5 group that holds the videos, None for the file itself.
        asked: videos that will be read; they decide between formats.

    Raises:
        ValueError: for a file or folder that cannot be read at all; the message names it.
    """
    chosen = file_format or detect_features_format(path, naming=naming, group=group, asked=asked)
    with reading(path):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder; check the path")
        return FEATURE_READERS[chosen](Place(path=path, key=key, naming=naming, group=group, asked=asked))
