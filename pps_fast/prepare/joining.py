"""Annotations joined with their encoded sentences, and the record of where all of it came from."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pps_fast import __version__
from pps_fast.data.record import PreparedSamples
from pps_fast.data.tokens import EncodedSentences, count_tokens, encode_sentences
from pps_fast.prepare.checks import num_halved
from pps_fast.prepare.feature_options import NAMED, recorded_options
from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.folds import assign_folds
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.vocabulary import Vocabulary, detect_vocabulary_format, read_vocabulary
from pps_fast.prepare.samples import Samples
from pps_fast.prepare.sentence_vectors import read_sentence_vectors
from pps_fast.prepare.sources import describe_source

# paths, which differ between machines, and what `sources` records
_NOT_RECORDED = (
    *("out", "train", "validation", "test", "pool", "durations", "features", "vocabulary"),
    *("sentence_vectors", "sentence_encoder", "sentence_key"),
    # as `recorded_options` has them
    *NAMED,
)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Annotations, their encoded sentences, and the words these are encoded with.

    Attributes:
        sentence_vectors: [M, n] float32 vectors of the M sentences, n their width, or None without any.
        sentence_source: the record of where these come from, or None.
    """

    samples: Samples
    encoded: EncodedSentences
    vocabulary: Vocabulary
    sentence_vectors: np.ndarray | None = None
    sentence_source: dict[str, Any] | None = None

    def keep(self, is_kept: np.ndarray) -> Joined:
        """Returns the samples where the [M] bool array is true."""
        vectors = self.sentence_vectors
        kept = replace(
            self,
            samples=self.samples.keep(is_kept),
            encoded=self.encoded.keep(is_kept),
            sentence_vectors=None if vectors is None else vectors[is_kept],
        )
        _require_samples(kept.samples)
        return kept


def _require_samples(samples: Samples) -> None:
    if not samples.rows:
        raise ValueError(
            "no usable annotation is left; check that annotations, features and vocabulary belong together"
        )


def encode(options: PrepareOptions, samples: Samples, problems: Problems, show_progress: bool = False) -> Joined:
    """Reads the vocabulary and encodes the sentences; ends the pass over the annotations.

    Raises:
        ValueError: for a vocabulary or vectors of sentences that cannot be used, and where no sample is left.
    """
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
    joined = Joined(samples=samples, encoded=encoded, vocabulary=vocabulary)
    is_kept = has_words
    if (read := read_sentence_vectors(options, samples, problems, show_progress)) is not None:
        vectors, has_vector, source = read
        joined = replace(joined, sentence_vectors=vectors, sentence_source=source)
        is_kept = has_words & has_vector
    problems.settle()
    return joined.keep(is_kept)


def describe_vocabulary(options: PrepareOptions, vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns the record of where the words come from."""
    chosen = options.vocabulary_format
    is_file = vocabulary.encoder is None
    return {
        **(describe_source(options.vocabulary) if is_file else {"encoder": vocabulary.encoder}),
        "format": detect_vocabulary_format(options.vocabulary) if chosen == "auto" else chosen,
        "words_available": vocabulary.num_available,
        "counts_from": vocabulary.counts_from,
        "notes": list(vocabulary.notes),
    }


def without_record(options: PrepareOptions, joined: Joined) -> PreparedSamples:
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
        sentence_vectors=joined.sentence_vectors,
    )


def provenance_of(
    options: PrepareOptions, sources: dict[str, Any], joined: Joined, problems: Problems
) -> dict[str, Any]:
    """Returns the origin of the data, without dates and folders, so that equal input gives equal output."""
    samples, encoded = joined.samples, joined.encoded
    members: dict[str, set[str]] = {}
    for name, row in zip(samples.split, samples.rows, strict=True):
        members.setdefault(name, set()).add(row.video_id)
    kept = {name: value for name, value in asdict(options).items() if name not in _NOT_RECORDED}
    kept |= recorded_options(options)
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
