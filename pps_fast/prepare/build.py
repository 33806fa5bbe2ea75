"""The steps of preparation, from options to the packed file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from pps_fast import __version__
from pps_fast.data.packing import Packing
from pps_fast.data.record import PreparedSamples, feature_recipe
from pps_fast.data.synthetic import planted_videos
from pps_fast.data.tokens import EncodedSentences, count_tokens, encode_sentences
from pps_fast.prepare.checks import num_halved, require_room_for_video
from pps_fast.prepare.options import PrepareOptions, check_options
from pps_fast.prepare.readers.features import BadVideo, FeatureReader, as_float16, open_features, resample
from pps_fast.prepare.readers.folds import assign_folds
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.vocabulary import Vocabulary, detect_vocabulary_format, read_vocabulary
from pps_fast.prepare.samples import Samples, read_samples, with_features
from pps_fast.prepare.sources import describe_source

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
            joined = _encode(options, samples, problems)
            features = _pack_planted(options, joined, packed)
        else:
            with _open(options, samples.video_ids) as reader:
                joined = _encode(options, with_features(samples, reader, problems), problems)
                joined, features = _pack_usable(options, joined, reader, packed, problems, show_progress)
        sources["features"] = features.source
        sources["vocabulary"] = _describe_vocabulary(options, joined.vocabulary)
        data = replace(
            _without_record(options, joined),
            provenance=_provenance(options, sources, joined, problems),
            num_frames=features.num_frames,
            recipe=feature_recipe([features.source], options.num_segments),
        )
        packed.finish(data)
    return data, features.width


@dataclass(frozen=True, kw_only=True)
class _Joined:
    """Annotations, their encoded sentences, and the words these are encoded with."""

    samples: Samples
    encoded: EncodedSentences
    vocabulary: Vocabulary

    def keep(self, is_kept: np.ndarray) -> _Joined:
        """Returns the samples where the [M] bool array is true."""
        kept = replace(self, samples=self.samples.keep(is_kept), encoded=self.encoded.keep(is_kept))
        _require_samples(kept.samples)
        return kept


@dataclass(frozen=True, kw_only=True)
class _Features:
    """What is known of the packed features: width F, [N] frames before resampling (None without any), their source."""

    width: int
    num_frames: np.ndarray | None
    source: dict[str, Any]


def _open(options: PrepareOptions, asked: list[str]) -> FeatureReader:
    file_format = None if options.features_format == "auto" else options.features_format
    return open_features(
        options.features,
        file_format=file_format,
        key=options.feature_key,
        suffix=options.feature_suffix,
        group=options.feature_group,
        asked=asked,
    )


def _require_samples(samples: Samples) -> None:
    if not samples.rows:
        raise ValueError(
            "no usable annotation is left; check that annotations, features and vocabulary belong together"
        )


def _encode(options: PrepareOptions, samples: Samples, problems: Problems) -> _Joined:
    """Reads the vocabulary and encodes the sentences; ends the pass over the annotations."""
    if not samples.rows:
        problems.settle()
        _require_samples(samples)
    chosen = options.vocabulary_format
    vocabulary = read_vocabulary(
        options.vocabulary,
        token_counts=count_tokens(samples.sentences),
        vocab_size=options.vocab_size,
        file_format=None if chosen == "auto" else chosen,
    )
    encoded = encode_sentences(samples.sentences, vocabulary.words, options.max_num_words)
    has_words = encoded.num_words > 0
    for index in np.flatnonzero(~has_words):
        row = samples.rows[index]
        problems.add("no known word", row.where, f"no word of {row.sentence!r} is in {options.vocabulary.name}")
    problems.settle()
    return _Joined(samples=samples, encoded=encoded, vocabulary=vocabulary).keep(has_words)


def _pack_planted(options: PrepareOptions, joined: _Joined, packed: Packing) -> _Features:
    samples = joined.samples
    sample = samples.window_sample
    if not len(sample):
        raise ValueError("--features planted: no annotation has times, and planted features show these; give times")
    shape = (options.num_segments, options.planted_dim)
    require_room_for_video(*shape)
    packed.begin(shape, _without_record(options, joined), room=_ROOM_FOR_RECORD)
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
    joined: _Joined,
    reader: FeatureReader,
    packed: Packing,
    problems: Problems,
    show_progress: bool,
) -> tuple[_Joined, _Features]:
    """Packs the features of every video that has usable ones; returns the samples of these."""
    while True:
        draft = _without_record(options, joined)
        num_frames, width = _pack_features(options, draft, reader, packed, problems, show_progress)
        is_usable = num_frames > 0
        if is_usable.all():
            break
        # a data set of HDF5 cannot shrink: without the videos that are left out it is written once more
        joined = joined.keep(is_usable[joined.samples.sample_video])
        reader.counts.clear()
    source = {**describe_source(options.features), "format": reader.file_format, "checks": dict(reader.counts)}
    return joined, _Features(width=width, num_frames=num_frames, source=source)


def _pack_features(
    options: PrepareOptions,
    draft: PreparedSamples,
    reader: FeatureReader,
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


def _describe_vocabulary(options: PrepareOptions, vocabulary: Vocabulary) -> dict[str, Any]:
    chosen = options.vocabulary_format
    return {
        **describe_source(options.vocabulary),
        "format": detect_vocabulary_format(options.vocabulary) if chosen == "auto" else chosen,
        "words_available": vocabulary.num_available,
        "counts_from": vocabulary.counts_from,
        "notes": list(vocabulary.notes),
    }


def _without_record(options: PrepareOptions, joined: _Joined) -> PreparedSamples:
    """Returns the data set as far as it is known before the features are read."""
    samples, encoded, vocabulary = joined.samples, joined.encoded, joined.vocabulary
    fold = np.full(len(samples.rows), -1, dtype=np.int64)
    if options.folds:
        by_video = assign_folds(samples.sample_video, len(samples.video_ids), options.folds, options.fold_seed)
        fold = by_video[samples.sample_video]
    return PreparedSamples(
        video_ids=samples.video_ids,
        duration_s=samples.duration_s,
        words=vocabulary.words,
        word_vectors=vocabulary.vectors,
        sample_video=samples.sample_video,
        sentences=samples.sentences,
        word_ids=encoded.word_ids,
        num_words=encoded.num_words,
        hide_prob=encoded.hide_prob,
        window_s=samples.window_s,
        window_sample=samples.window_sample,
        split=np.array(samples.split),
        fold=fold,
        provenance={},
        query_id=samples.query_id,
    )


def _provenance(
    options: PrepareOptions, sources: dict[str, Any], joined: _Joined, problems: Problems
) -> dict[str, Any]:
    """Returns the origin of the data, without dates and folders, so that equal input gives equal output."""
    samples, encoded = joined.samples, joined.encoded
    members: dict[str, set[str]] = {}
    for name, row in zip(samples.split, samples.rows, strict=True):
        members.setdefault(name, set()).add(row.video_id)
    kept = {
        name: value
        for name, value in asdict(options).items()
        if name not in ("out", "train", "validation", "test", "pool", "durations", "features", "vocabulary")
    }
    return {
        "name": options.name or options.out.stem,
        "tool": f"pps_fast {__version__}",
        "protocol": options.protocol,
        "is_pool": options.pool is not None,
        "options": kept,
        "sources": sources,
        "counts": {
            "videos": len(samples.video_ids),
            "samples": dict(Counter(samples.split)),
            "windows": len(samples.window_sample),
            "samples_without_times": sum(not row.windows for row in samples.rows),
            "videos_by_split": {name: len(videos) for name, videos in members.items()},
            "videos_in_several_splits": sum(map(len, members.values())) - len(set().union(*members.values())),
            "words_kept": int(encoded.num_words.sum()),
            "words_unknown": int(encoded.num_unknown.sum()),
            "words_cut": int(encoded.num_cut.sum()),
            "sentences_halved": num_halved(encoded),
            "content_words": int(encoded.num_content.sum()),
            "classes": len(joined.vocabulary.words),
        },
        "skipped": problems.summary(),
    }
