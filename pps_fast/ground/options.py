"""The options of `python -m pps_fast.ground`; importing this loads no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from pps_fast.config import EvaluationPrecision
from pps_fast.devices import Device
from pps_fast.ground.answers import MAX_TOP
from pps_fast.ground.page_links import SUFFIXES
from pps_fast.prepare.feature_options import FeatureOptions, split_name


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """What every program needs that asks a model about videos."""

    model: Path | None = None
    """model folder or run folder of `python -m pps_fast.align`, `train` or `published`, or USER/NAME of the hub"""
    zero_shot: str | None = None
    """in place of a model: joint encoder of frames and sentences (CLIP, SigLIP), folder or NAME; nothing is trained"""
    top: int = 5
    """most moments of an answer"""
    min_match: float = 0.5
    """below this match, the probability that a sentence is about a video, the answer is 'not found'"""
    segment_seconds: float | None = None
    """divide longer videos into windows of this many seconds, which overlap by half"""
    sentence_encoder: str | None = None
    """folder or NAME of the encoder of sentences, for a model that was fitted to vectors of whole sentences; default:
    the one that the model names (needs transformers, the extra `encoder`)"""
    encoder: tuple[str, ...] = ()
    """folder or NAME of the encoder of frames, one for each source of the model's features; default: those that the
    model names"""
    precision: EvaluationPrecision | None = None
    """precision of the matrix products of a model with networks; default: that of its evaluation"""
    cache: bool = False
    """keep the features of each video in a file beside it, and take them from there"""
    device: Device = "cpu"
    """where to run; auto is the GPU if there is one"""
    threads: int | None = None
    """CPU threads"""


@dataclass(frozen=True, kw_only=True)
class GroundArguments(AskOptions, FeatureOptions):
    """Options of the command."""

    sentences: tyro.conf.Positional[tuple[str, ...]] = ()
    """what to look for, each sentence in quotes; a file with the ending of a video among them is one of --videos"""
    videos: tuple[Path, ...] = ()
    """video files, and folders of them, encoded as the features of the model's training (needs the extra `video`)"""
    features: tuple[Path, ...] = ()
    """in place of --videos: features of one video (npy, npz), or of many, as `python -m pps_fast.prepare` reads or has
    written them. Several, each as NAME:PATH, are joined as there"""
    video: str | None = None
    """look in this video alone; default: in all videos"""
    duration: float | None = None
    """length of the video in seconds; without any length moments are told in percent of the video"""
    durations: Path | None = None
    """csv file with the lengths of all videos, columns id and length"""
    frames_per_second: float | None = None
    """rows of features for a second of video, from which lengths follow where nothing else tells them"""
    json: bool = False
    """print one JSON document"""
    jsonl: bool = False
    """print a line of JSON for each sentence"""
    html: Path | None = None
    """write a page with the answers along their videos, one file that any browser shows"""
    video_root: Path | None = None
    """folder with the files of the videos, which the page plays; they have the names of the videos"""


def with_sentences(arguments: GroundArguments) -> GroundArguments:
    """Returns the arguments with the sentences that followed the last path of --features or --videos among them.

    An option with several values takes every word up to the next option; what is there and looks like no path, with a
    blank or without an ending, is a sentence unless it is a file.
    """
    features, after_features = _divided(arguments.features)
    videos, after_videos = _divided(arguments.videos)
    sentences = (*arguments.sentences, *after_features, *after_videos)
    return replace(arguments, sentences=sentences, features=features, videos=videos)


def _divided(paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Returns the paths, and the sentences that follow the first of them."""
    words = tuple(str(path) for path in paths[1:] if _is_sentence(str(path)))
    return tuple(path for path in paths if str(path) not in words), words


def with_videos(arguments: GroundArguments) -> GroundArguments:
    """Returns the arguments with those of the sentences that are names of video files among the videos."""
    words = arguments.sentences
    files = [word for word in words if Path(word).suffix.lower() in SUFFIXES and " " not in Path(word).name]
    files += [word for word in words if word not in files and Path(word).suffix and os.path.isfile(word)]
    sentences = tuple(word for word in words if word not in files)
    return replace(arguments, sentences=sentences, videos=(*arguments.videos, *map(Path, files)))


def _is_sentence(word: str) -> bool:
    # functions of os.path: a long sentence is no name of a file, which methods of Path refuse
    looks_like_path = "/" in word or ":" in word or Path(word).suffix != ""
    return (" " in word or not looks_like_path) and not os.path.exists(split_name(word)[1])


def check_arguments(arguments: GroundArguments) -> None:
    """Refuses options that do not fit together.

    Raises:
        ValueError: naming the option.
    """
    if not arguments.sentences or not all(sentence.strip() for sentence in arguments.sentences):
        what = "an empty one" if arguments.sentences else "none"
        raise ValueError(f'sentences: {what}; put at least one in quotes, like "person opens the door"')
    check_asked(arguments, "duration", "frames_per_second", "segment_seconds")
    _check_videos(arguments)
    if arguments.json and arguments.jsonl:
        raise ValueError("--json and --jsonl: choose one of them")
    if arguments.video_root is not None and arguments.html is None:
        raise ValueError("--video-root: is read for a page alone; name one with --html")
    if arguments.html is not None:
        # before anything is computed
        from pps_fast.ground.page_links import require_page, require_root

        require_page(arguments.html)
        require_root(arguments.video_root)


def check_asked(arguments: AskOptions, *above_zero: str) -> None:
    """Refuses options of `AskOptions` that do not fit together.

    Args:
        above_zero: names of options that are numbers above 0, where they are given.
    Raises:
        ValueError: naming the option.
    """
    if (arguments.model is None) == (arguments.zero_shot is None):
        raise ValueError("--model and --zero-shot: give one of them, the model to ask or an encoder in its place")
    for name in above_zero:
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if not 0 <= arguments.min_match <= 1:
        raise ValueError(f"--min-match {arguments.min_match}: expected a probability, 0 to 1")
    if not 1 <= arguments.top <= MAX_TOP:
        raise ValueError(f"--top {arguments.top}: expected 1 to {MAX_TOP:,}")


def _check_videos(arguments: GroundArguments) -> None:
    if bool(arguments.videos) == bool(arguments.features):
        folders = (word for word in arguments.sentences if os.path.isdir(word))
        remedy = next((f"; the folder {folder} is taken behind --videos" for folder in folders), "")
        raise ValueError(f"--videos, --features: name video files or their features, one of the two{remedy}")
    for name in ("duration", "durations", "frames_per_second") if arguments.videos else ("encoder", "cache"):
        if getattr(arguments, name):
            kind = "of features, and video files tell their lengths" if arguments.videos else "of video files"
            raise ValueError(f"--{name.replace('_', '-')}: an option {kind}; leave it out")
