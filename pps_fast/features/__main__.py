"""python -m pps_fast.features: video files -> features that `prepare` and `ground` read."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from pps_fast.cli import exit_status, parse
from pps_fast.devices import Device
from pps_fast.help_text import Program

_MOST_FPS = 1000.0


@dataclass(frozen=True, kw_only=True)
class FeaturesArguments:
    """Options of the command."""

    videos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """video files, and folders of them; a video is known by its file's name without the ending"""
    out: Path
    """HDF5 file to write, which prepare and ground read; one that is there gets the videos that it lacks"""
    encoder: str
    """color (a toy, no download), a folder, or a NAME of the Hugging Face Hub: clip-vit-base-patch32,
    clip-vit-large-patch14, siglip-base-patch16-224, videomae-base, OWNER/NAME, NAME@REVISION"""
    fps: float = 1.0
    """rows of features for a second of video"""
    batch: int = 32
    """rows that are encoded at once"""
    readable: float = 0.9
    """share of a video that has to be readable, or it is refused; what cannot be read repeats the row before it"""
    device: Device = "auto"
    """where to encode; auto is the GPU if there is one"""
    threads: int | None = None
    """CPU threads"""


PROGRAM = Program(
    name="features",
    description="""Makes features of video files: the frame in the middle of each second (see --fps), encoded. The file
has a data set for each video, how it was made, and the videos' lengths, so that prepare needs nothing else. A finished
video is kept at once: after Ctrl-C or a kill the same command continues. Videos that cannot be used are named at the
end.""",
    options=FeaturesArguments,
    positional="videos",
    first=("videos", "out", "encoder", "fps", "batch", "readable", "device", "threads"),
    more="""Frames are taken by time, so that any rate, also one that changes, is right; rotated videos are turned
upright. Finished videos lie in OUT.parts until all are done and OUT is written as a whole. The exit status is 1 where a
video failed. Needs the extra `video` (PyAV and transformers).""",
    examples="""python -m pps_fast.features videos/ --out clip.h5 --encoder clip-vit-base-patch32
python -m pps_fast.features a.mp4 b.mkv --out clip.h5 --encoder models/clip-vit-large-patch14 --fps 2
python -m pps_fast.features videos/ --out color.h5 --encoder color""",
)


def run(arguments: FeaturesArguments) -> int:
    """Makes the features, prints what became of the videos, and returns the exit status.

    Raises:
        ValueError: for options, an encoder or a file that cannot be used.
        KeyboardInterrupt: after a Ctrl-C, when what is finished has been told.
    """
    _check(arguments)
    from pps_fast.features.decode import import_av, videos_in
    from pps_fast.features.encoders import locate_frame_encoder

    import_av("features")
    paths = videos_in(arguments.videos)
    # before torch is loaded, so that one that is not there is told at once
    locate_frame_encoder(arguments.encoder)
    from pps_fast.devices import choose_device, set_threads
    from pps_fast.features.encoders import open_encoder
    from pps_fast.features.extract import Extractor
    from pps_fast.features.report import format_outcome
    from pps_fast.features.run import extract_all
    from pps_fast.features.store import open_store, parts_of

    set_threads(arguments.threads)
    encoder = open_encoder(arguments.encoder, choose_device(arguments.device))
    extractor = Extractor(encoder=encoder, fps=arguments.fps, readable=arguments.readable, batch=arguments.batch)
    began = time.perf_counter()
    with open_store(arguments.out, extractor.recipe) as store:
        outcome = extract_all(paths, extractor, store)
        if outcome.is_interrupted:
            done = store.count(path.stem for path in paths)
            where = f"kept in {parts_of(arguments.out)}; the same command continues"
            print(f"note: {done:,} of {len(paths):,} videos are finished and {where}", file=sys.stderr)
            raise KeyboardInterrupt
        store.finish()
    print(format_outcome(outcome, extractor.recipe, arguments.out, time.perf_counter() - began))
    if outcome.failures:
        print(f"error: {len(outcome.failures):,} of {len(paths):,} videos failed, as told above", file=sys.stderr)
    return 1 if outcome.failures else 0


def _check(arguments: FeaturesArguments) -> None:
    if not arguments.videos:
        raise ValueError("videos: none; name video files or folders of them")
    if not 0 < arguments.fps <= _MOST_FPS:
        raise ValueError(f"--fps {arguments.fps}: expected a number above 0, at most {_MOST_FPS:g}")
    if arguments.batch < 1:
        raise ValueError(f"--batch {arguments.batch}: expected 1 or more")
    if not 0 <= arguments.readable <= 1:
        raise ValueError(f"--readable {arguments.readable}: expected a share, 0 to 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
