"""The options of `python -m pps_fast.prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pps_fast.prepare.feature_options import FeatureOptions, sources_of

AnnotationFormat = Literal[
    "auto", "published_json", "charades_txt", "activitynet_json", "qvhighlights_jsonl", "plain_jsonl", "plain_csv"
]
VocabularyFormat = Literal["auto", "published_pickle", "glove_text", "npz", "encoder"]
Protocol = Literal["full", "filtered", "as_is"]

# beyond any data set of the field; what is larger is a slip of the finger, met before anything is allocated
_LARGEST = {
    "num_segments": 65_536,
    "max_num_words": 4_096,
    "frame_dim": 1_048_576,
    "planted_dim": 65_536,
    "planted_noise": 1e6,
    "vocab_size": 100_000_000,
    "folds": 1_000_000,
}


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(FeatureOptions):
    """What to prepare, from what, and how."""

    out: Path
    """data file to write; replaces an older one"""
    features: tuple[Path, ...]
    """HDF5 file, or folder with a file for each video. Several as NAME:PATH, or Moment-DETR's or Lighthouse's folder,
    are joined. The word `planted` makes synthetic features"""
    vocabulary: Path
    """words and their vectors: published pickle, GloVe text, npz; or the folder of a sentence encoder"""
    protocol: Protocol
    """which annotated moments count. filtered: those with 0 <= start < end <= length, as PPS, CPL and CNM report on
    Charades-STA. full: ends are clipped to the
    video, and moments that are then empty are left out. as_is: all, unchanged, as for ActivityNet Captions"""

    train: Path | None = None
    """annotations of the training split"""
    validation: Path | None = None
    """annotations of the validation split"""
    test: Path | None = None
    """annotations of the test split"""
    pool: Path | None = None
    """annotations to divide into --folds, instead of the three splits"""
    durations: tuple[Path, ...] = ()
    """csv files with columns id and length (seconds), for annotations without lengths, as the txt of Charades-STA"""
    annotation_format: AnnotationFormat = "auto"
    """format of the annotations; auto: by extension and content"""

    frame_dim: int | None = None
    """expected size of a feature vector; default: that of the first video"""
    num_segments: int = 200
    """segments that each video's features are averaged to"""

    vocabulary_format: VocabularyFormat = "auto"
    """format of the vocabulary; auto: by extension. An encoder encodes each word alone, and may be named here"""
    vocab_size: int | None = None
    """keep this many of the most frequent words (paper: 1111 for Charades-STA, 8000 for ActivityNet); default: all"""
    max_num_words: int = 20
    """words of a sentence that are kept"""

    sentence_vectors: Path | None = None
    """vectors of whole sentences, which an alignment takes instead of the mean of word vectors: npz or HDF5 file with
    `vectors` and row names `query_id` or `sentences`, or with an entry for each query id, or a folder of such files"""
    sentence_key: str | None = None
    """array that holds a query's vector, of tokens their mean; default: vectors, pooler_output or last_hidden_state"""
    sentence_encoder: str | None = None
    """with --sentence-vectors: NAME@REVISION of the encoder that made them; default: what the file says. Without:
    folder or NAME of an encoder that encodes the sentences now (needs transformers, the extra `encoder`)"""

    folds: int = 0
    """divide the videos of --pool into this many folds, with about equal numbers of samples"""
    fold_seed: int = 0
    """seed of the division into folds"""

    planted_dim: int = 64
    """size of a planted feature vector"""
    planted_noise: float = 0.5
    """standard deviation of the noise in planted features"""
    seed: int = 0
    """seed of planted features"""

    name: str | None = None
    """name of the data set in reports; default: the name of the output file"""
    skip_bad: bool = False
    """leave bad rows and videos out and list them, instead of refusing the input"""

    @property
    def annotation_files(self) -> dict[str, Path]:
        """The annotation files by the split their samples get; the samples of a pool are "train"."""
        if self.pool is not None:
            return {"train": self.pool}
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: path for split, path in named.items() if path is not None}


def check_options(options: PrepareOptions) -> None:
    """Refuses options that do not fit together.

    Not a `__post_init__`, because the command line's parser would catch its error and print it in its own form.

    Raises:
        ValueError: naming the option, its value and what was expected.
    """
    splits = [name for name in ("train", "validation", "test") if getattr(options, name) is not None]
    if options.pool is None:
        _require("train" in splits or "test" in splits, "--train, --test, --pool", "none given", "annotations to read")
        _require(options.folds == 0, "--folds", options.folds, "0 without --pool; give the annotations as --pool")
    else:
        _require(not splits, "--pool", f"given with --{', --'.join(splits)}", "either a pool or splits")
        _require(options.folds >= 2, "--folds", options.folds, "2 or more folds for the videos of --pool")
    for name in ("num_segments", "max_num_words", "planted_dim"):
        _require(getattr(options, name) >= 1, _flag(name), getattr(options, name), "at least 1")
    for name in ("frame_dim", "vocab_size"):
        value = getattr(options, name)
        _require(value is None or value >= 1, _flag(name), value, "at least 1")
    for name in ("planted_noise", "seed", "fold_seed"):
        _require(getattr(options, name) >= 0, _flag(name), getattr(options, name), "0 or more")
    is_alone = options.sentence_key is not None and options.sentence_vectors is None
    _require(not is_alone, "--sentence-key", options.sentence_key, "--sentence-vectors beside it")
    sources_of(options)
    for name, most in _LARGEST.items():
        value = getattr(options, name)
        _require(value is None or value <= most, _flag(name), value, f"at most {most:,}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name}: {value}; expected {expected}")
