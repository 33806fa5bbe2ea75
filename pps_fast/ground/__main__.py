"""python -m pps_fast.ground: ask a model when in a video, or in which video, a sentence happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pps_fast.cli import exit_status, parse
from pps_fast.ground.options import GroundArguments, check_arguments, with_sentences, with_videos
from pps_fast.help_text import Program
from pps_fast.prepare.feature_options import sources_of
from pps_fast.reading import listed
from pps_fast.text_table import terminal_columns, wrapped

if TYPE_CHECKING:
    from pps_fast.ground.answers import Answer
    from pps_fast.ground.grounder import Grounder
    from pps_fast.ground.segments import EncodedVideo


PROGRAM = Program(
    name="ground",
    description="""Tells when in a video each sentence happens, or in which of many videos: ranked moments with the
probability that the sentence is about the video at all (match) and how sure the model is where in it (clarity). No true
time is needed. Videos are encoded once, whatever the number of sentences.""",
    options=GroundArguments,
    positional="sentences",
    first=(
        "sentences", "model", "videos", "cache", "features", "video", "duration", "top", "min_match",
        "segment_seconds", "json", "html", "video_root",
    ),
    more="""match counts own and other videos as equally likely, so that of many videos some reach 0.5 by chance. PPS
with an alignment in it has match and clarity from that. Other models with networks (PPS, CPL, CNM) have neither: how
well a proposal rebuilds the sentence hardly depends on the video. Among many videos they rank by that all the same,
and say so.""",
    examples="""python -m pps_fast.ground --model runs/clip kitchen.mp4 "person opens the door"
python -m pps_fast.ground --model runs/clip --videos videos --cache "person opens the door"
python -m pps_fast.ground --zero-shot clip-vit-base-patch32 kitchen.mp4 "person opens the door"
python -m pps_fast.ground --model runs/clip --features clip.npy --duration 30 "person opens the door"
python -m pps_fast.ground --model runs/clip --features clip.h5 --video 3MSZA "person turns a light on" "a dog barks"
python -m pps_fast.ground --model runs/clip --features clip.h5 --html answers.html --video-root videos "person laughs"
python -m pps_fast.ground --model runs/clip --features clip.hdf5 --durations test.csv --jsonl "person laughs" """,
)  # fmt: skip


def run(arguments: GroundArguments) -> int:
    """Encodes the videos, asks the sentences and prints the answers; returns the exit status.

    Raises:
        ValueError: for a model, videos, features, sentences or options that cannot be used.
    """
    arguments = with_videos(with_sentences(arguments))
    check_arguments(arguments)
    for named in filter(None, (arguments.sentence_encoder, arguments.zero_shot)):
        # before torch is loaded, so that one that is not there is told at once
        from pps_fast.features.encoders import full_name
        from pps_fast.prepare.readers.encoders import locate_encoder

        locate_encoder(full_name(named) if named == arguments.zero_shot else named)
    from pps_fast.devices import choose_device, set_threads
    from pps_fast.ground.zero_shot import open_grounder

    set_threads(arguments.threads)
    grounder = open_grounder(arguments, choose_device(arguments.device))
    began = time.perf_counter()
    videos, failures = _encode_files(arguments, grounder) if arguments.videos else (_encode(arguments, grounder), [])
    encode_s, began = time.perf_counter() - began, time.perf_counter()
    answers, unread = _ask(arguments, grounder, videos)
    ms_per_query = 1000 * (time.perf_counter() - began) / len(answers)
    if arguments.html is not None:
        _write_page(arguments, grounder, videos, answers)
    if grounder.no_match is not None:
        print(f"note: {grounder.no_match}", file=sys.stderr)
    record: dict[str, Any] = {"model": str(arguments.model or arguments.zero_shot), "num_videos": len(videos)}
    for name in ("videos", "features"):
        if paths := [str(path) for path in getattr(arguments, name)]:
            record[name] = paths if len(paths) > 1 else paths[0]
    record |= {"encode_s": encode_s, "ms_per_query": ms_per_query, "no_match": grounder.no_match}
    _print(arguments, answers, record)
    for failure in [*failures, *unread]:
        print(f"error: not searched: {failure}", file=sys.stderr)
    return 1 if failures or unread else 0


def _ask(arguments: GroundArguments, grounder: Grounder, videos: list[EncodedVideo]) -> tuple[list[Answer], list[str]]:
    """Asks all sentences; returns the answers, and why those that cannot be asked are not, if there are others.

    Raises:
        ValueError: where none can be asked.
    """
    try:
        return grounder.search(videos, arguments.sentences, top=arguments.top), []
    except ValueError:
        if len(arguments.sentences) == 1:
            raise
    answers: list[Answer] = []
    unread = []
    for sentence in arguments.sentences:
        try:
            answers += grounder.search(videos, [sentence], top=arguments.top)
        except ValueError as error:
            unread.append(str(error))
    if not answers:
        raise ValueError(unread[0])
    return answers, unread


def _encode(arguments: GroundArguments, grounder: Grounder) -> list[EncodedVideo]:
    """Reads and encodes the videos, one at a time."""
    from tqdm import tqdm

    from pps_fast.devices import choose_device, free_memory_of
    from pps_fast.ground.sources import Videos
    from pps_fast.machine import note_memory

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
    window, sizes = arguments.segment_seconds, grounder.sizes
    # encoded, in float32, and once more side by side; a video in several windows needs more
    needed = 2 * 4 * len(source.names) * sizes.num_segments * sizes.frame_dim
    what, free = f"a search in {len(source.names):,} videos", free_memory_of(choose_device(arguments.device))
    note_memory(needed, free, what, "search parts of the file, or one video with --video")
    with source:
        grounder.videos.require_same(source.recipes, listed(str(path) for path in arguments.features))
        shown = tqdm(source, desc="encode", unit="video", total=len(source.names), disable=None, leave=False)
        videos = []
        for name, frames, length in shown:
            try:
                videos.append(grounder.encode(frames, duration_s=length, name=name, segment_seconds=window))
            except ValueError as error:
                raise ValueError(f"video {name}: {error}") from error
        return videos


def _encode_files(arguments: GroundArguments, grounder: Grounder) -> tuple[list[EncodedVideo], list[str]]:
    """Encodes video files; returns them, and a sentence for each that cannot be used, if there are others."""
    from tqdm import tqdm

    paths, failures, videos = _files_of(arguments), [], []
    grounder.videos.open()
    grounder.videos.is_cached = arguments.cache
    for path in tqdm(paths, desc="encode", unit="video", disable=None, leave=False):
        try:
            videos.append(grounder.encode(path, segment_seconds=arguments.segment_seconds))
        except ValueError as error:
            if len(paths) == 1:
                raise
            failures.append(str(error))
    if not videos:
        raise ValueError(f"--videos: none of {len(paths):,} can be used; the first: {failures[0]}")
    return videos, failures


def _files_of(arguments: GroundArguments) -> list[Path]:
    """Returns the video files that are named, or the one of --video."""
    from pps_fast.features.decode import videos_in

    paths = videos_in(arguments.videos)
    if arguments.video is None:
        return paths
    chosen = [path for path in paths if arguments.video in (path.stem, path.name)]
    if not chosen:
        raise ValueError(f"--video {arguments.video}: not among the videos {listed(path.stem for path in paths)}")
    return chosen


def _write_page(
    arguments: GroundArguments, grounder: Grounder, videos: list[EncodedVideo], answers: list[Answer]
) -> None:
    """Writes the page, and says where it is."""
    from pps_fast.ground.page import write_page
    from pps_fast.ground.page_links import video_files

    path, root = Path(str(arguments.html)), arguments.video_root
    names = [str(video.name) for video in videos]
    named = {file.stem: file for file in _files_of(arguments)} if arguments.videos else {}
    files = {name: named[name] for name in names if name in named} if root is None else video_files(root, names)
    about = f"model {arguments.model or arguments.zero_shot}"
    write_page(path, grounder, videos, answers, video_files=files, min_match=arguments.min_match, about=about)
    playable = "" if not files and root is None else f", which plays {len(files):,} of {len(videos):,} videos"
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


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)), is_printing_all=True)


if __name__ == "__main__":
    sys.exit(main())
