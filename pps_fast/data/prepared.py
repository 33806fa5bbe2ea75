"""The one packed file of a prepared data set: what is in it, how it is written, how it is read.

Everything after `python -m pps_fast.prepare` reads this file and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pps_fast.files import replacing
from pps_fast.types import FeatureSizes

FORMAT = "pps_fast.prepared"
VERSION = 1
SPLITS = ("train", "validation", "test")

_ARRAYS = {
    "duration_s": np.float64,
    "features": np.float16,
    "word_vectors": np.float32,
    "sample_video": np.int64,
    "word_ids": np.int64,
    "num_words": np.int64,
    "hide_prob": np.float32,
    "moment_s": np.float64,
    "fold": np.int64,
}
_STRINGS = ("video_ids", "words", "sentences", "split")
# optional datasets
_OPTIONAL = ("kind",)


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A data set of N videos and M samples (a sample is one sentence with its video).

    Attributes:
        video_ids: N names, without repetition.
        duration_s: [N] float64 lengths in seconds, > 0.
        features: [N, S, F] float16, every video resampled once to S segments.
        words: V words; the class of a word is its index, words[0] is the padding "<pad>".
        word_vectors: [V, W] float32, row 0 zeros.
        sample_video: [M] int64, the video of each sample.
        sentences: M sentences as annotated.
        word_ids: [M, L] int64 classes of the kept words, 0 after the last one; L = max_num_words.
        num_words: [M] int64, 1 to L.
        hide_prob: [M, L] float32 hiding probabilities; rows sum to 1, 0 after the last word.
        moment_s: [M, 2] float64 annotated start and end in seconds. Never read by training.
        split: [M] "train", "validation" or "test".
        fold: [M] int64, the fold of the sample's video; -1 for a sample outside the folds.
        provenance: JSON-able record of where all this came from.
        kind: [M] words of the data set's own for samples that are reported apart, or None where it tells no kinds.

    Raises:
        ValueError: when the fields do not fit together; the message names the field.
    """

    video_ids: list[str]
    duration_s: np.ndarray
    features: np.ndarray
    words: list[str]
    word_vectors: np.ndarray
    sample_video: np.ndarray
    sentences: list[str]
    word_ids: np.ndarray
    num_words: np.ndarray
    hide_prob: np.ndarray
    moment_s: np.ndarray
    split: np.ndarray
    fold: np.ndarray
    provenance: dict[str, Any]
    kind: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)

    @property
    def num_samples(self) -> int:
        """M, the number of samples."""
        return len(self.sentences)

    @property
    def sizes(self) -> FeatureSizes:
        """The sizes a model needs to be built for this data set."""
        return FeatureSizes(
            frame_dim=self.features.shape[2],
            word_dim=self.word_vectors.shape[1],
            vocab_size=len(self.words),
            num_segments=self.features.shape[1],
        )

    @property
    def moment(self) -> np.ndarray:
        """[M, 2] float64 moments as fractions of the video's length, clipped to [0, 1]."""
        return np.clip(self.moment_s / self.duration_s[self.sample_video, None], 0.0, 1.0)


def _require(condition: bool, field: str, value: Any, expected: str) -> None:
    if not condition:
        raise ValueError(f"prepared data, field {field}: {value}; expected {expected}. Prepare the data set again")


def _check_shapes(data: PreparedData) -> None:
    num_videos, num_samples, num_words = len(data.video_ids), len(data.sentences), len(data.words)
    for name, dtype in _ARRAYS.items():
        actual = getattr(data, name).dtype
        _require(actual == dtype, name, f"dtype {actual}", f"{np.dtype(dtype)}")
    _require(data.features.ndim == 3, "features", f"shape {data.features.shape}", "[videos, segments, width]")
    _require(data.word_ids.ndim == 2, "word_ids", f"shape {data.word_ids.shape}", "[samples, words]")
    columns = data.word_ids.shape[1]
    expected = {
        "duration_s": (num_videos,),
        "features": (num_videos, *data.features.shape[1:]),
        "word_vectors": (num_words, data.word_vectors.shape[-1]),
        "sample_video": (num_samples,),
        "word_ids": (num_samples, columns),
        "num_words": (num_samples,),
        "hide_prob": (num_samples, columns),
        "moment_s": (num_samples, 2),
        "split": (num_samples,),
        "fold": (num_samples,),
    }
    if data.kind is not None:
        expected["kind"] = (num_samples,)
    for name, shape in expected.items():
        actual = getattr(data, name).shape
        _require(actual == shape, name, f"shape {actual}", f"{shape}")


def _check_values(data: PreparedData) -> None:
    _require(data.num_samples > 0, "sentences", "no samples", "at least one")
    _require(len(set(data.video_ids)) == len(data.video_ids), "video_ids", "repeated names", "each video once")
    _require(bool((data.duration_s > 0).all()), "duration_s", f"smallest {data.duration_s.min()}", "> 0 seconds")
    _require_range(data.sample_video, "sample_video", 0, len(data.video_ids) - 1)
    _require_range(data.word_ids, "word_ids", 0, len(data.words) - 1)
    _require_range(data.num_words, "num_words", 1, data.word_ids.shape[1])
    used = np.arange(data.word_ids.shape[1]) < data.num_words[:, None]
    _require(bool(((data.word_ids > 0) == used).all()), "word_ids", "classes beyond num_words", "0 after the last word")
    sums = data.hide_prob.sum(axis=1, dtype=np.float64)
    _require(bool(np.abs(sums - 1).max() < 1e-5), "hide_prob", f"row sums {sums.min()} to {sums.max()}", "1")
    _require(bool((data.hide_prob[~used] == 0).all()), "hide_prob", "mass after the last word", "0 there")
    _require(not data.word_vectors[0].any(), "word_vectors", "row 0 (padding) is not zero", "zeros")
    strange = sorted(set(np.unique(data.split).tolist()) - set(SPLITS))
    _require(not strange, "split", f"values {strange}", f"one of {', '.join(SPLITS)}")
    has_words = data.kind is None or bool((data.kind != "").all())
    _require(has_words, "kind", "samples without a word", "a word for every sample, or None for all")


def _require_range(values: np.ndarray, field: str, low: int, high: int) -> None:
    extremes = f"values {values.min()} to {values.max()}"
    _require(bool(values.min() >= low and values.max() <= high), field, extremes, f"{low} to {high}")


def check_output(path: Path) -> None:
    """Checks, before the work is done, that a prepared file may be written to a path.

    Raises:
        ValueError: when the folder does not exist, or when `path` is there and is not a prepared file itself.
    """
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; create it or choose another output")
    if path.is_dir():
        raise ValueError(f"{path}: a folder; name a file for the output")
    if path.exists() and not _has_mark(path):
        raise ValueError(f"{path}: exists and is not a prepared file; move it away or choose another output")


def _has_mark(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("format") == FORMAT
    except OSError:
        return False


def write_prepared(path: str | Path, data: PreparedData) -> None:
    """Writes `data` to `path` as HDF5: all of it or nothing; the same data gives the same bytes.

    Raises:
        ValueError: as `check_output`, or when writing fails, for instance for want of space.
    """
    path = Path(path)
    check_output(path)
    try:
        _write(path, data)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another"
        ) from error


def _write(path: Path, data: PreparedData) -> None:
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        for name in _ARRAYS:
            file.create_dataset(name, data=getattr(data, name))
        for name in _strings_of(data):
            file.create_dataset(name, data=[str(text) for text in getattr(data, name)], dtype=h5py.string_dtype())
        # a data set and not an attribute: HDF5 limits attributes to 64 KiB
        file.create_dataset("provenance", data=json.dumps(data.provenance, sort_keys=True), dtype=h5py.string_dtype())


def _strings_of(data: PreparedData) -> list[str]:
    """Returns the names of the text fields of a data set."""
    return [*_STRINGS, *(name for name in _OPTIONAL if getattr(data, name) is not None)]


def read_prepared(path: str | Path) -> PreparedData:
    """Reads a file of `write_prepared` into memory.

    Raises:
        ValueError: for a missing, foreign, truncated, damaged or older file; the message says which and what to do.
    """
    path = Path(path)
    remedy = "write it with `python -m pps_fast.prepare`"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {remedy}")
    try:
        with h5py.File(path, "r") as file:
            _check_header(path, file, remedy)
            values = _read_fields(file)
    except (OSError, KeyError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: not a readable HDF5 file of prepared data (truncated, damaged or of another kind); {remedy}"
        ) from error
    try:
        return PreparedData(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_header(path: Path, file: h5py.File, remedy: str) -> None:
    if file.attrs.get("format") != FORMAT:
        raise ValueError(f"{path}: an HDF5 file, but not one of prepared data (no mark {FORMAT!r}); {remedy}")
    version = int(file.attrs["version"])
    if version != VERSION:
        raise ValueError(f"{path}: prepared data of version {version}, this pps_fast reads {VERSION}; {remedy} again")


def _read_fields(file: h5py.File) -> dict[str, Any]:
    missing = [item.name for item in fields(PreparedData) if item.name not in file and item.name not in _OPTIONAL]
    if missing:
        raise KeyError(", ".join(missing))
    values: dict[str, Any] = {name: file[name][()] for name in _ARRAYS}
    strings = [*_STRINGS, *(name for name in _OPTIONAL if name in file)]
    values.update({name: file[name].asstr()[()].tolist() for name in strings})
    for name in ("split", *_OPTIONAL):
        if name in values:
            values[name] = np.array(values[name])
    values["provenance"] = json.loads(file["provenance"].asstr()[()])
    return values
