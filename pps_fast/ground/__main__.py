"""python -m pps_fast.ground: ask a model when in a video, or in which video, a sentence happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from pps_fast.cli import exit_status, parse
from pps_fast.devices import Device
from pps_fast.ground.answers import MAX_TOP
from pps_fast.help_text import Program
from pps_fast.prepare.feature_options import FeatureOptions, sources_of, split_name
from pps_fast.text_table import terminal_columns, wrapped

if TYPE_CHECKING:
    from pps_fast.ground.answers import Answer
    from pps_fast.ground.grounder import Grounder
    from pps_fast.ground.segments import EncodedVideo


@dataclass(frozen=True, kw_only=True)
class GroundArguments(FeatureOptions):
    """Options of the command."""

    sentences: tyro.conf.Positional[tuple[str, ...]] = ()
    """what to look for, each sentence in quotes"""
    model: Path
    """model folder or run folder of `python -m pps_fast.align`, `train` or `published`"""
    features: tuple[Path, ...]
    """one video (npy, npz), or many: a file or folder that `python -m pps_fast.prepare` reads or has written. Several,
    each as NAME:PATH, are joined as there"""
    video: str | None = None
    """look in this video alone; default: in all videos of --features"""
    duration: float | None = None
    """length of the video in seconds; without any length moments are told in percent of the video"""
    durations: Path | None = None
    """csv file with the lengths of all videos, columns id and length"""
    frames_per_second: float | None = None
    """rows of features for a second of video, from which lengths follow where nothing else tells them"""
    top: int = 5
    """most moments of an answer"""
    min_match: float = 0.5
    """below this match, the probability that a sentence is about a video, the answer is 'not found'"""
    segment_seconds: float | None = None
    """divide longer videos into windows of this many seconds, which overlap by half"""
    sentence_encoder: str | None = None
    """folder or NAME of the encoder of sentences, for a model that was fitted to vectors of whole sentences; default:
    the one that the model names (needs transformers, the extra `encoder`)"""
    json: bool = False
    """print one JSON document"""
    jsonl: bool = False
    """print a line of JSON for each sentence"""
    html: Path | None = None
    """write a page with the answers along their videos, one file that any browser shows"""
    video_root: Path | None = None
    """folder with the files of the videos, which the page plays; they have the names of the videos"""
    device: Device = "cpu"
    """where to run; auto is the GPU if there is one"""
    threads: int | None = None
    """CPU threads"""


PROGRAM = Program(
    name="ground",
    description="""Tells when in a video each sentence happens, or in which of many videos: ranked moments with the
probability that the sentence is about the video at all (match) and how sure the model is where in it (clarity). No true
time is needed. Videos are encoded once, whatever the number of sentences.""",
    options=GroundArguments,
    positional="sentences",
    first=(
        "sentences", "model", "features", "video", "duration", "durations", "top", "min_match", "segment_seconds",
        "sentence_encoder", "json", "jsonl", "html", "video_root",
    ),
    more="""match counts own and other videos as equally likely, so that of many videos some reach 0.5 by chance. PPS
with an alignment in it has match and clarity from that. Other models with networks (PPS, CPL, CNM) have neither: how
well a proposal rebuilds the sentence hardly depends on the video. Among many videos they rank by that all the same,
and say so.""",
    examples="""python -m pps_fast.ground --model runs/clip --features clip.npy --duration 30 "person opens the door"
python -m pps_fast.ground --model runs/clip --features clip.h5 --video 3MSZA "person turns a light on" "a dog barks"
python -m pps_fast.ground --model runs/clip --features clip.h5 --html answers.html --video-root videos "person laughs"
python -m pps_fast.ground --model runs/clip --features clip.hdf5 --durations test.csv --jsonl "person laughs" """,
)  # fmt: skip


def run(arguments: GroundArguments) -> int:
    """Encodes the videos, asks the sentences and prints the answers; returns the exit status.

    Raises:
        ValueError: for a model, features, sentences or options that cannot be used.
    """
    arguments = with_sentences(arguments)
    _check(arguments)
    if arguments.sentence_encoder is not None:
        # before torch is loaded, so that one that is not there is told at once
        from pps_fast.prepare.readers.encoders import locate_encoder

        locate_encoder(arguments.sentence_encoder)
    from pps_fast.devices import choose_device, set_threads
    from pps_fast.ground.grounder import load

    set_threads(arguments.threads)
    grounder = load(arguments.model, choose_device(arguments.device), arguments.sentence_encoder)
    began = time.perf_counter()
    videos = _encode(arguments, grounder)
    encode_s, began = time.perf_counter() - began, time.perf_counter()
    answers = grounder.search(videos, arguments.sentences, top=arguments.top)
    ms_per_query = 1000 * (time.perf_counter() - began) / len(answers)
    if arguments.html is not None:
        _write_page(arguments, grounder, videos, answers)
    if grounder.no_match is not None:
        print(f"note: {grounder.no_match}", file=sys.stderr)
    features = [str(path) for path in arguments.features]
    record: dict[str, Any] = {"model": str(arguments.model), "num_videos": len(videos)}
    record["features"] = features if len(features) > 1 else features[0]
    record |= {"encode_s": encode_s, "ms_per_query": ms_per_query, "no_match": grounder.no_match}
    _print(arguments, answers, record)
    return 0


def with_sentences(arguments: GroundArguments) -> GroundArguments:
    """Returns the arguments with the sentences that followed the last path of --features among the sentences.

    An option with several values takes every word up to the next option; what is there and looks like no path, with a
    blank or without an ending, is a sentence unless it is a file.
    """
    sentences = tuple(str(path) for path in arguments.features[1:] if _is_sentence(str(path)))
    kept = tuple(path for path in arguments.features if str(path) not in sentences)
    return replace(arguments, features=kept, sentences=arguments.sentences + sentences)


def _is_sentence(word: str) -> bool:
    looks_like_path = "/" in word or ":" in word or Path(word).suffix != ""
    return (" " in word or not looks_like_path) and not Path(split_name(word)[1]).exists()


def _encode(arguments: GroundArguments, grounder: Grounder) -> list[EncodedVideo]:
    """Reads and encodes the videos, one at a time."""
    from tqdm import tqdm

    from pps_fast.ground.sources import Videos

    sources = sources_of(arguments)
    if sorted(str(source.name) for source in sources) == sorted(grounder.source_names):
        # side by side in the order of the training
        sources.sort(key=lambda source: grounder.source_names.index(str(source.name)))
    source = Videos(
        sources,
        video=arguments.video,
        durations=arguments.durations,
        duration_s=arguments.duration,
        frames_per_second=arguments.frames_per_second,
    )
    window = arguments.segment_seconds
    with source:
        shown = tqdm(source, desc="encode", unit="video", total=len(source.names), disable=None, leave=False)
        return [
            grounder.encode(frames, duration_s=length, name=name, segment_seconds=window)
            for name, frames, length in shown
        ]


def _write_page(
    arguments: GroundArguments, grounder: Grounder, videos: list[EncodedVideo], answers: list[Answer]
) -> None:
    """Writes the page, and says where it is."""
    from pps_fast.ground.page import write_page
    from pps_fast.ground.page_links import video_files

    path, root = Path(str(arguments.html)), arguments.video_root
    files = {} if root is None else video_files(root, [str(video.name) for video in videos])
    about = f"model {arguments.model}"
    write_page(path, grounder, videos, answers, video_files=files, min_match=arguments.min_match, about=about)
    playable = "" if root is None else f", which plays {len(files):,} of {len(videos):,} videos"
    print(f"page: {path}{playable}", file=sys.stderr)


def _print(arguments: GroundArguments, answers: list[Answer], record: dict[str, Any]) -> None:
    from pps_fast.ground.report import format_answer, format_json, format_lines

    if arguments.json:
        print(format_json(answers, record, arguments.min_match))
    elif arguments.jsonl:
        print(format_lines(answers, arguments.min_match))
    else:
        columns, count = terminal_columns(), record["num_videos"]
        for answer in answers:
            print(format_answer(answer, arguments.min_match, columns) + "\n")
        what = "1 video" if count == 1 else f"{count:,} videos"
        times = f"encoded in {record['encode_s']:.2f} s, then {record['ms_per_query']:.1f} ms for a sentence"
        print(wrapped(f"{what} {times}, the first included.", columns))


def _check(arguments: GroundArguments) -> None:
    if not arguments.sentences:
        raise ValueError('sentences: none; put at least one in quotes, like "person opens the door"')
    if arguments.json and arguments.jsonl:
        raise ValueError("--json and --jsonl: choose one of them")
    if arguments.video_root is not None and arguments.html is None:
        raise ValueError("--video-root: is read for a page alone; name one with --html")
    if arguments.html is not None:
        # before anything is computed
        from pps_fast.ground.page_links import require_page, require_root

        require_page(arguments.html)
        require_root(arguments.video_root)
    for name in ("duration", "frames_per_second", "segment_seconds"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if not 1 <= arguments.top <= MAX_TOP:
        raise ValueError(f"--top {arguments.top}: expected 1 to {MAX_TOP:,}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)), is_printing_all=True)


if __name__ == "__main__":
    sys.exit(main())
