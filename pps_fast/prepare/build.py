"""The steps of preparation, from options to a `PreparedData`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from pps_fast import __version__
from pps_fast.data.prepared import check_output
from pps_fast.data.record import PreparedData, feature_recipe
from pps_fast.data.synthetic import planted_features
from pps_fast.data.tokens import EncodedSentences, count_tokens, encode_sentences
from pps_fast.prepare.checks import num_halved, require_room_for_features
from pps_fast.prepare.options import PrepareOptions, check_options
from pps_fast.prepare.readers.features import BadVideo, FeatureReader, as_float16, open_features, resample
from pps_fast.prepare.readers.folds import assign_folds
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.vocabulary import Vocabulary, detect_vocabulary_format, read_vocabulary
from pps_fast.prepare.samples import Samples, read_samples
from pps_fast.prepare.sources import describe_source


def build(options: PrepareOptions, show_progress: bool = False) -> PreparedData:
    """Reads, checks and joins annotations, vocabulary and features; the same input gives the same result.

    Raises:
        ValueError: for unusable input; the message names file, row and remedy. With `skip_bad` only for input of
            which nothing usable is left or that cannot be read at all.
    """
    check_options(options)
    check_output(options.out)
    problems = Problems(skip=options.skip_bad)
    samples, sources = read_samples(options, problems)
    if options.is_planted:
        samples, encoded, vocabulary = _encode(options, samples, problems)
        features = _plant(options, samples, encoded, vocabulary)
    else:
        with _open(options, samples.video_ids) as reader:
            samples = _with_features(samples, reader, problems)
            samples, encoded, vocabulary = _encode(options, samples, problems)
            read, num_frames = _read_features(options, reader, samples.video_ids, problems, show_progress)
            source = {**describe_source(options.features), "format": reader.file_format, "checks": dict(reader.counts)}
        is_kept = (num_frames > 0)[samples.sample_video]
        samples, encoded = samples.keep(is_kept), encoded.keep(is_kept)
        _require_samples(samples)
        if not is_kept.all():
            # only then, because it copies the largest array
            read, num_frames = read[num_frames > 0], num_frames[num_frames > 0]
        features = _Features(values=read, num_frames=num_frames, source=source)
    sources["features"] = features.source
    sources["vocabulary"] = _describe_vocabulary(options, vocabulary)
    provenance = _provenance(options, sources, samples, encoded, vocabulary, problems)
    return _assemble(options, samples, encoded, vocabulary, features, provenance)


@dataclass(frozen=True, kw_only=True)
class _Features:
    """Features of N videos, [N, S, F] float16, [N] frames before resampling (None without any), and their source."""

    values: np.ndarray
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


def _with_features(samples: Samples, reader: FeatureReader, problems: Problems) -> Samples:
    known = reader.ids()
    is_known = np.array([row.video_id in known for row in samples.rows], dtype=bool)
    for index in np.flatnonzero(~is_known):
        row = samples.rows[index]
        problems.add("unknown video", row.where, f"video {row.video_id} has no features in {reader.name}")
    return samples.keep(is_known)


def _encode(
    options: PrepareOptions, samples: Samples, problems: Problems
) -> tuple[Samples, EncodedSentences, Vocabulary]:
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
    samples = samples.keep(has_words)
    _require_samples(samples)
    return samples, encoded.keep(has_words), vocabulary


def _plant(options: PrepareOptions, samples: Samples, encoded: EncodedSentences, vocabulary: Vocabulary) -> _Features:
    sample = samples.window_sample
    if not len(sample):
        raise ValueError("--features planted: no annotation has times, and planted features show these; give times")
    require_room_for_features(len(samples.video_ids), options.num_segments, options.planted_dim)
    values = planted_features(
        durations_s=samples.duration_s,
        sample_video=samples.sample_video[sample],
        moment_s=samples.window_s,
        word_ids=encoded.word_ids[sample],
        word_vectors=vocabulary.vectors,
        num_segments=options.num_segments,
        frame_dim=options.planted_dim,
        noise=options.planted_noise,
        seed=options.seed,
    )
    return _Features(
        values=values, num_frames=None, source={"planted": f"by pps_fast {__version__}", "format": "planted"}
    )


def _read_features(
    options: PrepareOptions, reader: FeatureReader, video_ids: list[str], problems: Problems, show_progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Reads and resamples every video.

    Returns:
        [N, S, F] float16 features, and [N] int64 frames of each video, 0 where it could not be read.
    """
    width, expected = options.frame_dim, "named with --frame-dim"
    require_room_for_features(len(video_ids), options.num_segments, width or 1)
    features = np.zeros((len(video_ids), options.num_segments, width or 0), dtype=np.float16)
    num_frames = np.zeros(len(video_ids), dtype=np.int64)
    for index, video_id in enumerate(
        tqdm(video_ids, desc="videos", unit="video", disable=None if show_progress else True)
    ):
        try:
            frames = reader.read(video_id)
            if width is None:
                width, expected = frames.shape[1], f"that of video {video_id}"
                require_room_for_features(len(video_ids), options.num_segments, width)
                features = np.zeros((*features.shape[:2], width), dtype=np.float16)
            if frames.shape[1] != width:
                raise BadVideo(f"has features of width {frames.shape[1]}, expected {width}, {expected}")
            features[index] = as_float16(resample(frames, options.num_segments))
            num_frames[index] = len(frames)
        except BadVideo as error:
            problems.add("bad features", f"{reader.name}, video {video_id}", str(error))
    problems.settle()
    return features, num_frames


def _describe_vocabulary(options: PrepareOptions, vocabulary: Vocabulary) -> dict[str, Any]:
    chosen = options.vocabulary_format
    return {
        **describe_source(options.vocabulary),
        "format": detect_vocabulary_format(options.vocabulary) if chosen == "auto" else chosen,
        "words_available": vocabulary.num_available,
        "counts_from": vocabulary.counts_from,
        "notes": list(vocabulary.notes),
    }


def _assemble(
    options: PrepareOptions,
    samples: Samples,
    encoded: EncodedSentences,
    vocabulary: Vocabulary,
    features: _Features,
    provenance: dict[str, Any],
) -> PreparedData:
    fold = np.full(len(samples.rows), -1, dtype=np.int64)
    if options.folds:
        by_video = assign_folds(samples.sample_video, len(samples.video_ids), options.folds, options.fold_seed)
        fold = by_video[samples.sample_video]
    return PreparedData(
        video_ids=samples.video_ids,
        duration_s=samples.duration_s,
        features=features.values,
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
        provenance=provenance,
        query_id=samples.query_id,
        num_frames=features.num_frames,
        recipe=feature_recipe([features.source], options.num_segments),
    )


def _provenance(
    options: PrepareOptions,
    sources: dict[str, Any],
    samples: Samples,
    encoded: EncodedSentences,
    vocabulary: Vocabulary,
    problems: Problems,
) -> dict[str, Any]:
    """Returns the origin of the data, without dates and folders, so that equal input gives equal output."""
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
            "classes": len(vocabulary.words),
        },
        "skipped": problems.summary(),
    }
