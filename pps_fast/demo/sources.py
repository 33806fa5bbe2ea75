"""Where a demo's videos come from: a folder of files, and features of them where these were made before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pps_fast.demo.library import Library
from pps_fast.devices import choose_device, set_threads
from pps_fast.ground.grounder import Grounder
from pps_fast.ground.page_links import SUFFIXES, video_files
from pps_fast.ground.segments import EncodedVideo
from pps_fast.ground.sources import Videos
from pps_fast.ground.zero_shot import open_grounder
from pps_fast.prepare.feature_options import FeatureOptions, sources_of

if TYPE_CHECKING:
    from pps_fast.demo.__main__ import DemoArguments


def open_library(arguments: DemoArguments) -> Library:
    """Loads the model, and the features where there are some.

    Raises:
        ValueError: for a model, videos or features that cannot be used.
    """
    set_threads(arguments.threads)
    grounder = open_grounder(arguments, choose_device(arguments.device))
    encoded = [] if arguments.features is None else _encoded(arguments, grounder)
    if encoded:
        files = video_files(arguments.videos, [str(video.name) for video in encoded])
    else:
        paths = sorted(arguments.videos.iterdir())
        files = {path.stem: path for path in paths if path.suffix.lower() in SUFFIXES}
        # what is missing is told at once
        grounder.videos.open()

    def encode(path: Path, name: str) -> EncodedVideo:
        # beside a dropped file nothing is kept: it is in a temporary folder
        grounder.videos.is_cached = arguments.cache and path in files.values()
        return grounder.encode(path, name=name, segment_seconds=arguments.segment_seconds)

    return Library(grounder, files, encode, encoded=encoded, top=arguments.top, min_match=arguments.min_match)


def _encoded(arguments: DemoArguments, grounder: Grounder) -> list[EncodedVideo]:
    """Returns the videos of the features."""
    sources = sources_of(FeatureOptions(features=(Path(str(arguments.features)),)))
    with Videos(sources, durations=arguments.durations, frames_per_second=arguments.frames_per_second) as videos:
        grounder.videos.require_same(videos.recipes, str(arguments.features))
        return [
            grounder.encode(frames, duration_s=length, name=name, segment_seconds=arguments.segment_seconds)
            for name, frames, length in videos
        ]
