"""The steps of preparation, from options to the packed file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from pps_fast import __version__
from pps_fast.data.packing import Packing
from pps_fast.data.record import PreparedSamples, feature_recipe
from pps_fast.data.synthetic import planted_videos
from pps_fast.prepare.checks import require_room_for_video
from pps_fast.prepare.feature_options import sources_of
from pps_fast.prepare.joining import Joined, describe_vocabulary, encode, provenance_of, without_record
from pps_fast.prepare.options import PrepareOptions, check_options
from pps_fast.prepare.readers.frames import BadVideo, as_float16, resample
from pps_fast.prepare.readers.joined import AnyReader, open_sources
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.samples import read_samples, with_features
from pps_fast.prepare.sources import describe_features

# bytes for provenance, recipe and frames of videos, which are written after the features
_ROOM_FOR_RECORD = 1 << 20


def prepare(options: PrepareOptions, show_progress: bool = False) -> tuple[PreparedSamples, int]:
    """Reads, checks and joins annotations, vocabulary and features into the packed file; equal input gives equal bytes.

    Features are read, resampled and written one video at a time.

    Returns:
        What was written beside the features, and the width F of these.
    Raises:
        ValueError: for unusable input; the message names file, row and remedy. With `skip_bad` only for input of
            which nothing usable is left or that cannot be read at all.
    """
    check_options(options)
    problems = Problems(skip=options.skip_bad)
    with Packing(options.out) as packed:
        samples, sources = read_samples(options, problems)
        if options.is_planted:
            joined = encode(options, samples, problems, show_progress)
            features = _pack_planted(options, joined, packed)
        else:
            with open_sources(sources_of(options), samples.video_ids) as reader:
                usable = with_features(samples, reader, problems)
                joined = encode(options, usable, problems, show_progress)
                joined, features = _pack_usable(options, joined, reader, packed, problems, show_progress)
        sources["features"] = features.source
        sources["vocabulary"] = describe_vocabulary(options, joined.vocabulary)
        recipe = feature_recipe(features.sources, options.num_segments, joining=features.source.get("joining"))
        if joined.sentence_source is not None:
            sources["sentence_vectors"] = recipe["sentence_vectors"] = joined.sentence_source
        data = replace(
            without_record(options, joined),
            provenance=provenance_of(options, sources, joined, problems),
            num_frames=features.num_frames,
            recipe=recipe,
        )
        packed.finish(data)
    return data, features.width


@dataclass(frozen=True, kw_only=True)
class _Features:
    """What is known of the packed features: width F, [N] frames before resampling (None without any), their origin."""

    width: int
    num_frames: np.ndarray | None
    source: dict[str, Any]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The record of each source."""
        return self.source.get("sources", [self.source])


def _pack_planted(options: PrepareOptions, joined: Joined, packed: Packing) -> _Features:
    samples = joined.samples
    sample = samples.window_sample
    if not len(sample):
        raise ValueError("--features planted: no annotation has times, and planted features show these; give times")
    shape = (options.num_segments, options.planted_dim)
    require_room_for_video(*shape)
    packed.begin(shape, without_record(options, joined), room=_ROOM_FOR_RECORD)
    videos = planted_videos(
        durations_s=samples.duration_s,
        sample_video=samples.sample_video[sample],
        moment_s=samples.window_s,
        word_ids=joined.encoded.word_ids[sample],
        word_vectors=joined.vocabulary.vectors,
        num_segments=options.num_segments,
        frame_dim=options.planted_dim,
        noise=options.planted_noise,
        seed=options.seed,
    )
    for values in videos:
        packed.add(values)
    source = {"planted": f"by pps_fast {__version__}", "format": "planted"}
    return _Features(width=options.planted_dim, num_frames=None, source=source)


def _pack_usable(
    options: PrepareOptions,
    joined: Joined,
    reader: AnyReader,
    packed: Packing,
    problems: Problems,
    show_progress: bool,
) -> tuple[Joined, _Features]:
    """Packs the features of every video that has usable ones; returns the samples of these."""
    while True:
        draft = without_record(options, joined)
        num_frames, width = _pack_features(options, draft, reader, packed, problems, show_progress)
        is_usable = num_frames > 0
        if is_usable.all():
            break
        # a data set of HDF5 cannot shrink: without the videos that are left out it is written once more
        joined = joined.keep(is_usable[joined.samples.sample_video])
        reader.forget()
    source = describe_features(sources_of(options), reader)
    return joined, _Features(width=width, num_frames=num_frames, source=source)


def _pack_features(
    options: PrepareOptions,
    draft: PreparedSamples,
    reader: AnyReader,
    packed: Packing,
    problems: Problems,
    show_progress: bool,
) -> tuple[np.ndarray, int]:
    """Reads, resamples and packs every video up to the first unusable one, and checks all others.

    Returns:
        [N] int64 frames of each video, 0 where it is unusable, and the width F.
    """
    width, expected = options.frame_dim, "named with --frame-dim"
    num_frames = np.zeros(len(draft.video_ids), dtype=np.int64)
    is_shown = None if show_progress else True
    for index, video_id in enumerate(tqdm(draft.video_ids, desc="videos", unit="video", disable=is_shown)):
        try:
            frames = reader.read(video_id)
            if width is None:
                width, expected = frames.shape[1], f"that of video {video_id}"
            if frames.shape[1] != width:
                raise BadVideo(f"has features of width {frames.shape[1]}, expected {width}, {expected}")
            require_room_for_video(options.num_segments, width)
            values = as_float16(resample(frames, options.num_segments))
        except BadVideo as error:
            problems.add("bad features", f"{reader.name}, video {video_id}", str(error))
            continue
        if index == 0:
            packed.begin(values.shape, draft, room=_ROOM_FOR_RECORD + num_frames.nbytes)
        if num_frames[:index].all():
            packed.add(values)
        num_frames[index] = len(frames)
    problems.settle()
    return num_frames, width or 0
