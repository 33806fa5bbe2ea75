"""python -m pps_fast.demo: ask a model about videos in a browser."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pps_fast.cli import exit_status, parse
from pps_fast.ground.options import AskOptions, check_asked
from pps_fast.help_text import Program

_MAX_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class DemoArguments(AskOptions):
    """Options of the command."""

    videos: Path
    """folder with the files of the videos, which whoever reaches the address may see"""
    features: Path | None = None
    """features of the videos, as `python -m pps_fast.ground` reads them; default: encode each video when it is
    first asked, as the features of the model's training (needs the extra `video`)"""
    durations: Path | None = None
    """csv file with the lengths of the videos of --features, columns id and length"""
    frames_per_second: float | None = None
    """rows of --features for a second of video, from which lengths follow where nothing else tells them"""
    host: str = "127.0.0.1"
    """address to listen at; the default is reached from this machine alone, 0.0.0.0 from the whole network"""
    port: int | None = None
    """port to listen at; default: the first free one from 7860"""


PROGRAM = Program(
    name="demo",
    description="""Asks a model about videos in a browser: choose a video or drop one, type a sentence, and choose an
answer to see that moment. It is served from this machine to this machine unless --host says otherwise, and nothing is
sent anywhere else. Needs gradio: pip install 'pps-fast[demo]'.""",
    options=DemoArguments,
    first=("model", "zero_shot", "videos", "features", "cache", "top", "min_match", "segment_seconds", "host", "port"),
    examples="""python -m pps_fast.demo --model runs/clip --videos videos --cache
python -m pps_fast.demo --model runs/clip --videos videos --features clip.h5 --port 8000""",
)


def run(arguments: DemoArguments) -> int:
    """Loads the model, serves the demo until it is interrupted, and returns the exit status.

    Raises:
        ValueError: for a model, videos or options that cannot be used, or where gradio is not installed.
    """
    from pps_fast.demo.app import build, import_gradio, launch

    _check(arguments)
    import_gradio()
    from pps_fast.demo.sources import open_library

    library = open_library(arguments)
    app = build(library, f"{len(library.names):,} videos, model {arguments.model or arguments.zero_shot}")
    address = launch(app, host=arguments.host, port=arguments.port, folders=[arguments.videos])
    print(f"demo: {address} (end it with Ctrl-C)", flush=True)
    app.block_thread()
    return 0


def _check(arguments: DemoArguments) -> None:
    check_asked(arguments, "frames_per_second", "segment_seconds")
    if not arguments.videos.is_dir():
        raise ValueError(f"--videos {arguments.videos}: no folder; name the one where the files of the videos lie")
    if arguments.port is not None and not 1 <= arguments.port <= _MAX_PORT:
        raise ValueError(f"--port {arguments.port}: expected 1 to {_MAX_PORT:,}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
