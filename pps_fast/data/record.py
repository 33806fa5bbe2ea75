"""A prepared data set in memory: videos, sentences, the windows they describe, splits, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pps_fast.data.feature_file import Features
from pps_fast.data.identity import content_parts
from pps_fast.types import FeatureSizes

SPLITS = ("train", "validation", "test")

ARRAYS = {
    "duration_s": np.float64,
    "word_vectors": np.float32,
    "sample_video": np.int64,
    "word_ids": np.int64,
    "num_words": np.int64,
    "hide_prob": np.float32,
    "window_s": np.float64,
    "window_sample": np.int64,
    "fold": np.int64,
}
"""fields that are arrays of numbers, with their dtypes; the features apart"""
FEATURE_DTYPE = np.float16
OPTIONAL_ARRAYS = {"sentence_vectors": np.float32, "num_frames": np.int64}


@dataclass(frozen=True, kw_only=True)
class PreparedSamples:
    """A data set of N videos and M samples (a sample is one sentence with its video) with W windows, without features.

    A window is a moment that a sentence describes. A sample has none, one or several: training needs none, and scoring
    takes the best over a sample's windows.

    Attributes:
        video_ids: N names, without repetition.
        duration_s: [N] float64 lengths in seconds, > 0.
        words: V words; the class of a word is its index, words[0] is the padding "<pad>".
        word_vectors: [V, W] float32, row 0 zeros.
        sample_video: [M] int64, the video of each sample.
        sentences: M sentences as annotated.
        word_ids: [M, L] int64 classes of the kept words, 0 after the last one; L = max_num_words.
        num_words: [M] int64, 1 to L.
        hide_prob: [M, L] float32 hiding probabilities; rows sum to 1, 0 after the last word.
        window_s: [W, 2] float64 annotated start and end in seconds. Never read by training.
        window_sample: [W] int64, the sample of each window, in increasing order.
        split: [M] "train", "validation" or "test".
        fold: [M] int64, the fold of the sample's video; -1 for a sample outside the folds.
        provenance: JSON-able record of where all this came from.
        kind: [M] words of the data set's own for samples that are reported apart, or None where it tells no kinds.
        query_id: M names or numbers of the samples as annotated (None for a sample without), or None for all.
        sentence_vectors: [M, D] float32 vectors of whole sentences, or None.
        num_frames: [N] int64 frames of each video before resampling, or None where that was not recorded.
        recipe: JSON-able record of how the features were made (see `feature_recipe`), or None where not recorded.

    Raises:
        ValueError: when the fields do not fit together; the message names the field.
    """

    video_ids: list[str]
    duration_s: np.ndarray
    words: list[str]
    word_vectors: np.ndarray
    sample_video: np.ndarray
    sentences: list[str]
    word_ids: np.ndarray
    num_words: np.ndarray
    hide_prob: np.ndarray
    window_s: np.ndarray
    window_sample: np.ndarray
    split: np.ndarray
    fold: np.ndarray
    provenance: dict[str, Any]
    kind: np.ndarray | None = None
    query_id: list[str | int | None] | None = None
    sentence_vectors: np.ndarray | None = None
    num_frames: np.ndarray | None = None
    recipe: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)

    @property
    def num_samples(self) -> int:
        """M, the number of samples."""
        return len(self.sentences)

    @property
    def num_windows(self) -> np.ndarray:
        """[M] int64 windows of each sample."""
        return np.bincount(self.window_sample, minlength=self.num_samples)

    @property
    def moment_s(self) -> np.ndarray:
        """[M, 2] float64 start and end of each sample's first window in seconds, NaN for a sample without windows."""
        moments = np.full((self.num_samples, 2), np.nan)
        samples, first = np.unique(self.window_sample, return_index=True)
        moments[samples] = self.window_s[first]
        return moments

    @property
    def moment(self) -> np.ndarray:
        """[M, 2] float64: `moment_s` as fractions of the video's length, clipped to [0, 1]."""
        return np.clip(self.moment_s / self.duration_s[self.sample_video, None], 0.0, 1.0)

    def truth(self, samples: np.ndarray) -> np.ndarray:
        """Returns all windows of B samples as fractions of the video's length, clipped to [0, 1].

        Args:
            samples: [B] int64 samples, each with a window at least.
        Returns:
            [B, n, 2] float64, n the most windows of one of them; fewer are filled up by repeating the first, which
            changes no best overlap.
        Raises:
            ValueError: for a sample without a window.
        """
        counts = self.num_windows[samples]
        if not counts.all():
            raise ValueError(
                f"sample {samples[counts == 0][0]}: has no window, so that nothing can be compared with it"
            )
        column = np.arange(counts.max(initial=1))
        column = np.where(column < counts[:, None], column, 0)  # [B, n]
        first = np.searchsorted(self.window_sample, samples)
        seconds = self.window_s[first[:, None] + column]  # [B, n, 2]
        return np.clip(seconds / self.duration_s[self.sample_video[samples], None, None], 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PreparedData(PreparedSamples):
    """A data set with its features, as models take it.

    Attributes:
        features: [N, S, F] float16, every video resampled once to S segments; an array, or a `FeatureFile`, which is
            indexed by video as an array is and reads what is asked for.

    Raises:
        ValueError: as `PreparedSamples`.
    """

    features: Features

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_features(self)

    @property
    def sizes(self) -> FeatureSizes:
        """The sizes a model needs to be built for this data set."""
        return FeatureSizes(
            frame_dim=self.features.shape[2],
            word_dim=self.word_vectors.shape[1],
            vocab_size=len(self.words),
            num_segments=self.features.shape[1],
            sentence_dim=0 if self.sentence_vectors is None else self.sentence_vectors.shape[1],
        )

    @cached_property
    def content(self) -> dict[str, str]:
        """The sha256 of each part of the content, see `identity.content_parts`; computed once."""
        return content_parts(self)


def feature_recipe(sources: list[dict[str, Any]], num_segments: int, joining: str | None = None) -> dict[str, Any]:
    """Returns the record of how features were made.

    Args:
        sources: name and format of each source of features, without folders.
        num_segments: S, to which each video was resampled.
        joining: how several sources were made one; None for a single one, which is taken as it is.
    """
    recipe = {"sources": sources, "num_segments": num_segments, "resampling": "means of equal parts"}
    return {**recipe, "dtype": "float16", **({} if joining is None else {"joining": joining})}


def _require(condition: bool, field: str, value: Any, expected: str) -> None:
    if not condition:
        raise ValueError(f"prepared data, field {field}: {value}; expected {expected}. Prepare the data set again")


def _check_features(data: PreparedData) -> None:
    features = data.features
    _require(features.dtype == FEATURE_DTYPE, "features", f"dtype {features.dtype}", f"{np.dtype(FEATURE_DTYPE)}")
    _require(features.ndim == 3, "features", f"shape {features.shape}", "[videos, segments, width]")
    expected = (len(data.video_ids), *features.shape[1:])
    _require(features.shape == expected, "features", f"shape {features.shape}", f"{expected}")


def _check_shapes(data: PreparedSamples) -> None:
    num_videos, num_samples, num_words = len(data.video_ids), len(data.sentences), len(data.words)
    optional = {name: dtype for name, dtype in OPTIONAL_ARRAYS.items() if getattr(data, name) is not None}
    for name, dtype in {**ARRAYS, **optional}.items():
        actual = getattr(data, name).dtype
        _require(actual == dtype, name, f"dtype {actual}", f"{np.dtype(dtype)}")
    _require(data.word_ids.ndim == 2, "word_ids", f"shape {data.word_ids.shape}", "[samples, words]")
    columns = data.word_ids.shape[1]
    expected = {
        "duration_s": (num_videos,),
        "word_vectors": (num_words, data.word_vectors.shape[-1]),
        "sample_video": (num_samples,),
        "word_ids": (num_samples, columns),
        "num_words": (num_samples,),
        "hide_prob": (num_samples, columns),
        "window_s": (len(data.window_s), 2),
        "window_sample": (len(data.window_s),),
        "split": (num_samples,),
        "fold": (num_samples,),
    }
    if data.kind is not None:
        expected["kind"] = (num_samples,)
    if data.num_frames is not None:
        expected["num_frames"] = (num_videos,)
    if data.sentence_vectors is not None:
        expected["sentence_vectors"] = (num_samples, data.sentence_vectors.shape[-1])
    for name, shape in expected.items():
        actual = getattr(data, name).shape
        _require(actual == shape, name, f"shape {actual}", f"{shape}")


def _check_values(data: PreparedSamples) -> None:
    is_record = isinstance(data.provenance, dict) and isinstance(data.recipe, dict | None)
    _require(is_record, "provenance, recipe", "no objects of JSON", "names and values")
    _require(data.num_samples > 0, "sentences", "no samples", "at least one")
    _require(len(set(data.video_ids)) == len(data.video_ids), "video_ids", "repeated names", "each video once")
    _require(bool((data.duration_s > 0).all()), "duration_s", f"smallest {data.duration_s.min()}", "> 0 seconds")
    _require_range(data.sample_video, "sample_video", 0, len(data.video_ids) - 1)
    _require_range(data.word_ids, "word_ids", 0, len(data.words) - 1)
    _require_range(data.num_words, "num_words", 1, data.word_ids.shape[1])
    used = np.arange(data.word_ids.shape[1]) < data.num_words[:, None]
    _require(bool(((data.word_ids > 0) == used).all()), "word_ids", "classes beyond num_words", "0 after the last word")
    with np.errstate(invalid="ignore"):
        sums = data.hide_prob.sum(axis=1, dtype=np.float64)
    _require(bool(np.abs(sums - 1).max() < 1e-5), "hide_prob", f"row sums {sums.min()} to {sums.max()}", "1")
    _require(bool((data.hide_prob[~used] == 0).all()), "hide_prob", "mass after the last word", "0 there")
    _require(not data.word_vectors[0].any(), "word_vectors", "row 0 (padding) is not zero", "zeros")
    strange = sorted(set(np.unique(data.split).tolist()) - set(SPLITS))
    _require(not strange, "split", f"values {strange}", f"one of {', '.join(SPLITS)}")
    _check_windows(data)
    has_words = data.kind is None or bool((data.kind != "").all())
    _require(has_words, "kind", "samples without a word", "a word for every sample, or None for all")


def _check_windows(data: PreparedSamples) -> None:
    if len(data.window_s):
        _require_range(data.window_sample, "window_sample", 0, data.num_samples - 1)
        in_order = bool((np.diff(data.window_sample) >= 0).all())
        _require(in_order, "window_sample", "samples out of order", "increasing samples")
        finite = bool(np.isfinite(data.window_s).all())
        _require(finite, "window_s", "values that are not finite", "seconds")
        reversed_windows = int((data.window_s[:, 0] > data.window_s[:, 1]).sum())
        _require(not reversed_windows, "window_s", f"{reversed_windows} windows end before they start", "start <= end")
    if data.query_id is not None:
        is_plain = isinstance(data.query_id, list) and all(isinstance(name, str | int | None) for name in data.query_id)
        _require(is_plain, "query_id", "something else", "names or numbers")
        count = len(data.query_id)
        _require(count == data.num_samples, "query_id", f"{count} entries", f"{data.num_samples}")
    if data.num_frames is not None:
        _require_range(data.num_frames, "num_frames", 1, 2**62)


def _require_range(values: np.ndarray, field: str, low: int, high: int) -> None:
    extremes = f"values {values.min()} to {values.max()}"
    _require(bool(values.min() >= low and values.max() <= high), field, extremes, f"{low} to {high}")
