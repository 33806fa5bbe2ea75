"""Feature files: readers of the field's forms, and the resampling of a video to a fixed number of segments.

    hdf5        file[video] is [n, F]
    hdf5_group  file[video][key] is [n, F], for instance key c3d_features
    npy         folder/{video}{suffix}.npy is [n, F], or [n, 1, 1, F]
    npz         folder/{video}{suffix}.npz, entry key (default "features")
    pt          folder/{video}{suffix}.pt, one tensor; read with weights_only, so it cannot run code

Every reader is made by `open_features` and closed by leaving its `with` block.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import h5py
import numpy as np
import torch

DEFAULT_NPZ_KEY = "features"
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


# what numpy, h5py and torch raise for a file that is truncated, damaged or of another kind
_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class BadVideo(ValueError):
    """The features of one video cannot be used; the message says why, without naming the file or the video."""


@dataclass(kw_only=True)
class FeatureReader:
    """Features of many videos behind one interface.

    Attributes:
        name: file or folder name, for messages.
        file_format: key of FEATURE_READERS.
        locate: video -> whatever `load` takes.
        load: takes what `locate` gives, returns an array of any shape and dtype.
        close: ends the reading.
    """

    name: str
    file_format: str
    locate: dict[str, Any]
    load: Callable[[Any], np.ndarray]
    close: Callable[[], None] = field(default=lambda: None)

    def ids(self) -> set[str]:
        """The videos that have features."""
        return set(self.locate)

    def read(self, video_id: str) -> np.ndarray:
        """Returns the [n, F] float32 features of a video, n >= 1, all finite.

        Raises:
            BadVideo: for a damaged file, no frames, another shape, NaN or infinite values.
            KeyError: for a video without features.
        """
        location = self.locate[video_id]
        try:
            array = self.load(location)
        except BadVideo:
            raise
        except UnpicklingError as error:
            raise BadVideo("is refused: it is damaged or holds more than tensors; fetch it again") from error
        except _UNREADABLE as error:
            raise BadVideo("cannot be read: it is truncated, damaged or of another form; fetch it again") from error
        return checked_frames(array)

    def __enter__(self) -> FeatureReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


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
    frames = array.reshape(shape[0], shape[-1])
    bad = ~np.isfinite(frames)
    if bad.any():
        raise BadVideo(f"has {int(bad.sum())} NaN or infinite values, the first in frame {int(bad.any(1).argmax())}")
    # a float64 beyond float32 becomes infinite here and is refused when it meets float16
    with np.errstate(over="ignore"):
        return frames.astype(np.float32)


def _open_hdf5_file(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        what = "not a complete HDF5 file (truncated, damaged or of another kind)"
        raise ValueError(f"{path}: {what}; fetch it again or name its format with --features-format") from error


def _hdf5(path: Path, key: str | None, suffix: str) -> FeatureReader:
    file = _open_hdf5_file(path)
    names = {name.removesuffix(suffix): name for name in file if name.endswith(suffix)}
    return FeatureReader(
        name=path.name, file_format="hdf5", locate=names, load=lambda name: file[name][()], close=file.close
    )


def _hdf5_group(path: Path, key: str | None, suffix: str) -> FeatureReader:
    file = _open_hdf5_file(path)
    names = {name.removesuffix(suffix): name for name in file if name.endswith(suffix)}
    if key is None:
        key = _only_entry(path, file)

    def load(name: str) -> np.ndarray:
        group = file[name]
        if not isinstance(group, h5py.Group) or key not in group:
            entries = ", ".join(group) if isinstance(group, h5py.Group) else "no group"
            raise BadVideo(f"has no data set {key!r} (it has {entries}); name one with --feature-key")
        return group[key][()]

    return FeatureReader(name=path.name, file_format="hdf5_group", locate=names, load=load, close=file.close)


def _only_entry(path: Path, file: h5py.File) -> str:
    first = next(iter(file.values()), None)
    entries = list(first) if isinstance(first, h5py.Group) else []
    if len(entries) == 1:
        return entries[0]
    file.close()
    listed = ", ".join(entries) or "no data sets"
    raise ValueError(f"{path}: the group of a video holds {listed}; name the features with --feature-key")


def _folder(path: Path, suffix: str, extension: str) -> dict[str, Path]:
    if not path.is_dir():
        raise ValueError(
            f"{path}: expected a folder of {extension} files; name the folder or another --features-format"
        )
    ending = suffix + extension
    return {file.name.removesuffix(ending): file for file in sorted(path.iterdir()) if file.name.endswith(ending)}


def _npy(path: Path, key: str | None, suffix: str) -> FeatureReader:
    def load(file: Path) -> np.ndarray:
        return np.load(file, allow_pickle=False)

    return FeatureReader(name=path.name, file_format="npy", locate=_folder(path, suffix, ".npy"), load=load)


def _npz(path: Path, key: str | None, suffix: str) -> FeatureReader:
    def load(file: Path) -> np.ndarray:
        # opened here, because numpy leaves a damaged archive open
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            wanted = key or DEFAULT_NPZ_KEY
            if wanted not in archive:
                raise BadVideo(f"has no entry {wanted!r} (it has {', '.join(archive)}); name one with --feature-key")
            return archive[wanted]

    return FeatureReader(name=path.name, file_format="npz", locate=_folder(path, suffix, ".npz"), load=load)


def _pt(path: Path, key: str | None, suffix: str) -> FeatureReader:
    def load(file: Path) -> np.ndarray:
        content = torch.load(file, map_location="cpu", weights_only=True)
        tensor = content.get(key) if isinstance(content, dict) else content
        if not isinstance(tensor, torch.Tensor):
            entries = f" of {', '.join(map(str, content))}" if isinstance(content, dict) else ""
            raise BadVideo(f"holds a {type(content).__name__}{entries}, not a tensor; name one with --feature-key")
        return tensor.float().numpy()

    return FeatureReader(name=path.name, file_format="pt", locate=_folder(path, suffix, ".pt"), load=load)


FEATURE_READERS: dict[str, Callable[[Path, str | None, str], FeatureReader]] = {
    "hdf5": _hdf5,
    "hdf5_group": _hdf5_group,
    "npy": _npy,
    "npz": _npz,
    "pt": _pt,
}


def detect_features_format(path: Path) -> str:
    """Names the format of a feature file (from its first entry) or folder (from the extension of its files).

    Raises:
        ValueError: for a missing or empty path, or a folder without a known extension.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; check the path")
    if path.is_dir():
        suffixes = {file.suffix for file in path.iterdir()} & {".npy", ".npz", ".pt"}
        if len(suffixes) == 1:
            return suffixes.pop().removeprefix(".")
        listed = ", ".join(sorted(suffixes)) or "no .npy, .npz or .pt files"
        raise ValueError(f"{path}: the folder holds {listed}; name the format with --features-format")
    with _open_hdf5_file(path) as file:
        first = next(iter(file), None)
        if first is None:
            raise ValueError(f"{path}: an HDF5 file without any video; name the right file")
        return "hdf5_group" if isinstance(file[first], h5py.Group) else "hdf5"


def open_features(
    path: Path, *, file_format: str | None = None, key: str | None = None, suffix: str = ""
) -> FeatureReader:
    """Opens a feature file or folder; see the top of this file for the formats.

    Args:
        path: HDF5 file, or folder with one file per video.
        file_format: key of FEATURE_READERS; None to detect it.
        key: entry inside a video's group or file.
        suffix: what stands between the video's name and the extension in file names.

    Raises:
        ValueError: for a file or folder that cannot be read at all; the message names it.
    """
    chosen = file_format or detect_features_format(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; check the path")
    return FEATURE_READERS[chosen](path, key, suffix)


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
