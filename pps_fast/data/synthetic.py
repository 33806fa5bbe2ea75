"""Synthetic data with planted moments: every sentence is visible in the features inside its moment.

What this data can show: that a run learns at all, that it uses both the video and the whole query (events of one video
share verbs or nouns, so one word is not enough), that moments of two events are harder than those of one, and that it
does so without a single time (`moment_s` is truth for evaluation only). A fixed interval does badly on the embedded
set, so a model that beats the blind baselines has looked at the video.

What it cannot show: anything about real video or language. Here a word *is* a direction in feature space, segments are
independent given their event, borders are sharp, and the grammar has some twenty words. A method that is better here
need not be better on Charades-STA, and no number from planted data belongs beside one from real features.

Letters: N videos, M sentences of all videos, m sentences of one video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pps_fast.config import PlantedConfig
from pps_fast.data.record import PreparedData, feature_recipe
from pps_fast.data.tokens import hiding_probabilities
from pps_fast.machine import require_memory

VERBS = ("opens", "closes", "takes", "holds", "washes", "throws", "lifts", "fixes")
NOUNS = ("door", "cup", "book", "window", "bag", "towel", "laptop", "chair")
FUNCTION_WORDS = ("person", "the", "a", "then", "and", ".")
WORDS = ("<pad>", *VERBS, *NOUNS, *FUNCTION_WORDS)

MAX_NUM_WORDS = 10
NUM_EVENTS = 4
"""events of every video; each has a sentence, and so have NUM_PAIRS pairs of neighbors"""
NUM_PAIRS = 2
KINDS = ("single-event", "multi-event")
"""kinds of samples, by how many events the sentence says"""

# length of what is planted; the unit vectors of a verb and a noun add up to about this
_STRENGTH = 2**0.5
_CLASS = {word: index for index, word in enumerate(WORDS)}


@dataclass(frozen=True, kw_only=True)
class PlantedSentences:
    """M sentences over N videos, as `planted_videos` takes them.

    Attributes:
        durations_s: [N] lengths in seconds.
        sample_video: [M] int64, the video of each sentence.
        moment_s: [M, 2] start and end in seconds; clipped to the video.
        word_ids: [M, L] int64 rows of `word_vectors`, 0 after the last word.
        word_vectors: [V, W] float32, row 0 unused.
    """

    durations_s: np.ndarray
    sample_video: np.ndarray
    moment_s: np.ndarray
    word_ids: np.ndarray
    word_vectors: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Video:
    """One video before its features: events in order of time."""

    bounds: np.ndarray  # [NUM_EVENTS, 2] fractions of the video
    verbs: list[str]
    nouns: list[str]
    pairs: list[int]  # first events of the pairs that have a sentence


def planted_data(config: PlantedConfig) -> PreparedData:
    """Makes the embedded synthetic data set; the same config gives the same arrays.

    Every video is a row of NUM_EVENTS events with background between some of them; an event shows a verb and a noun.
    Sentences say one event ("person opens the door .") or two neighbors ("person opens the door then takes a cup .",
    a third of all). The last fifth of the videos is the test split.

    Raises:
        ValueError: for a negative seed, or features that do not fit into the free memory.
    """
    rng = _generator(config.seed, stream=0)
    videos = [_draw_video(rng) for _ in range(config.num_videos)]
    duration_s = rng.uniform(20.0, 40.0, size=config.num_videos)
    word_vectors = _unit_rows(rng.standard_normal((len(WORDS), config.frame_dim)))
    word_vectors[0] = 0.0

    samples = [(index, *sample) for index, video in enumerate(videos) for sample in _describe(video, rng)]
    sample_video = np.array([index for index, _, _ in samples], dtype=np.int64)
    fractions = np.array([bounds for _, bounds, _ in samples])  # [M, 2]
    word_ids, num_words, hide_prob = _encode([tokens for _, _, tokens in samples])
    first_test = config.num_videos - config.num_videos // 5
    return PreparedData(
        video_ids=[f"planted_{index:05d}" for index in range(config.num_videos)],
        duration_s=duration_s,
        features=_event_features(config, videos, duration_s, word_vectors),
        words=list(WORDS),
        word_vectors=word_vectors.astype(np.float32),
        sample_video=sample_video,
        sentences=[" ".join(tokens) for _, _, tokens in samples],
        word_ids=word_ids,
        num_words=num_words,
        hide_prob=hide_prob,
        window_s=fractions * duration_s[sample_video, None],
        window_sample=np.arange(len(samples)),
        split=np.where(sample_video < first_test, "train", "test"),
        fold=np.full(len(samples), -1, dtype=np.int64),
        provenance=_provenance(config, len(samples)),
        recipe=feature_recipe([{"format": "planted"}], config.num_segments),
        kind=np.where((word_ids == _CLASS["then"]).any(axis=1), KINDS[1], KINDS[0]),
    )


def planted_videos(
    *, num_segments: int, frame_dim: int, noise: float, seed: int, **sentences: np.ndarray
) -> Iterator[np.ndarray]:
    """Makes features, one video at a time, in which each sentence is visible inside its moment and nowhere else.

    The vectors of the sentence's words are mapped to F dimensions by a fixed random map, normalized and averaged; the
    mean over all sentences is subtracted. Segments whose middle lies in the moment (at least one) get the result;
    where sentences overlap they add up; segments of no sentence get a background vector of their video. Over real
    annotations this gives a data set with real moments, durations and sentences and a learnable answer. It shows that
    a method can find what is there, and nothing about how well it sees real video.

    Args:
        num_segments, frame_dim: S and F.
        noise: standard deviation of the Gaussian noise on every number of every segment; what is planted has length
            sqrt(2) whatever F is.
        seed: of the map, the background and the noise; a video's noise depends on it and on the video's index.
        sentences: the fields of `PlantedSentences`, all of them.
    Yields:
        N times [S, F] float16.
    Raises:
        ValueError: for a negative seed.
    """
    annotated = PlantedSentences(**sentences)
    planted = _sentence_vectors(annotated, frame_dim, seed)  # [M, F]
    inside = _inside(annotated, num_segments)  # [M, S]
    order = np.argsort(annotated.sample_video, kind="stable")
    first = np.searchsorted(annotated.sample_video[order], np.arange(len(annotated.durations_s) + 1))
    for video in range(len(annotated.durations_s)):
        members = order[first[video] : first[video + 1]]
        rng = _generator(seed, stream=2, index=video)
        yield _plant_video(inside[members], planted[members], noise, rng).astype(np.float16)


def planted_features(*, num_segments: int, frame_dim: int, **options: Any) -> np.ndarray:
    """Returns the features of `planted_videos`, which takes the same options, as one array [N, S, F] float16."""
    size = 2 * len(options["durations_s"]) * num_segments * frame_dim
    require_memory(size, "the planted data", "lower the number of videos, of segments or of dimensions")
    features = np.empty((len(options["durations_s"]), num_segments, frame_dim), dtype=np.float16)
    # one video at a time: float32 copies of a whole data set would take twice its final memory
    videos = planted_videos(num_segments=num_segments, frame_dim=frame_dim, **options)
    for video, values in enumerate(videos):
        features[video] = values
    return features


def num_events(data: PreparedData) -> np.ndarray:
    """Returns [M] int64: how many events each sentence of the embedded data describes, 1 or 2."""
    return 1 + np.asarray(data.kind == KINDS[1], dtype=np.int64)


def _generator(seed: int, stream: int, index: int = 0) -> np.random.Generator:
    if seed < 0:
        raise ValueError(f"seed of planted data = {seed}: expected 0 or more")
    return np.random.default_rng([seed, stream, index])


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Returns the rows at length 1; rows of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def _sentence_vectors(annotated: PlantedSentences, frame_dim: int, seed: int) -> np.ndarray:
    """Returns [M, F] float32: the feature vector that shows each sentence, of length sqrt(2)."""
    mapping = _random_map(annotated.word_vectors.shape[1], frame_dim, seed)  # [W, F]
    directions = _unit_rows(annotated.word_vectors @ mapping)  # [V, F]
    directions[0] = 0.0
    num_words = np.maximum(np.count_nonzero(annotated.word_ids, axis=1), 1)[:, None]
    mean = np.zeros((len(annotated.word_ids), frame_dim))
    # one column at a time: [M, L, F] at once would be gigabytes
    for column in annotated.word_ids.T:
        mean += directions[column] / num_words
    # function words stand in every sentence and would hide what tells sentences apart
    return (_STRENGTH * _unit_rows(mean - mean.mean(axis=0))).astype(np.float32)


def _random_map(word_dim: int, frame_dim: int, seed: int) -> np.ndarray:
    """Returns [W, F] with orthonormal rows (W <= F) or columns (W > F)."""
    rows, columns = max(word_dim, frame_dim), min(word_dim, frame_dim)
    basis, _ = np.linalg.qr(_generator(seed, stream=1).standard_normal((rows, columns)))
    return basis if word_dim > frame_dim else basis.T


def _inside(annotated: PlantedSentences, num_segments: int) -> np.ndarray:
    """Returns [M, S] bool: the middle of the segment lies in the moment, or the middle of the moment in the segment."""
    moment = np.clip(annotated.moment_s / annotated.durations_s[annotated.sample_video, None], 0.0, 1.0)
    middle = (np.arange(num_segments) + 0.5) / num_segments
    inside = (moment[:, :1] <= middle) & (middle < moment[:, 1:])
    nearest = np.minimum((moment.mean(axis=1) * num_segments).astype(np.int64), num_segments - 1)
    inside[np.arange(len(moment)), nearest] = True
    return inside


def _plant_video(inside: np.ndarray, planted: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Returns one video [S, F] from its sentences' segments [m, S] and vectors [m, F]."""
    num_segments, frame_dim = inside.shape[1], planted.shape[1]
    background = _STRENGTH * _unit_rows(rng.standard_normal((1, frame_dim)))
    segments = np.float32(noise) * rng.standard_normal((num_segments, frame_dim), dtype=np.float32)
    segments += inside.T.astype(np.float32) @ planted
    segments[~inside.any(axis=0)] += background.astype(np.float32)
    return segments


def _draw_video(rng: np.random.Generator) -> _Video:
    """Draws borders and contents of one video's events."""
    verbs, nouns = _draw_events(rng)
    lengths = rng.uniform(0.5, 1.5, size=NUM_EVENTS)
    gaps = rng.exponential(0.5, size=NUM_EVENTS + 1)
    # half of the neighbors touch
    gaps[1:-1] *= rng.random(NUM_EVENTS - 1) < 0.5
    start = np.cumsum(gaps)[:-1] + np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    bounds = np.stack([start, start + lengths], axis=1) / (lengths.sum() + gaps.sum())
    pairs = sorted(rng.choice(NUM_EVENTS - 1, size=NUM_PAIRS, replace=False).tolist())
    return _Video(bounds=bounds, verbs=verbs, nouns=nouns, pairs=pairs)


def _draw_events(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Draws distinct (verb, noun) pairs; a later event often repeats the verb or the noun of an earlier one."""
    events: list[tuple[int, int]] = []
    while len(events) < NUM_EVENTS:
        verb, noun = int(rng.integers(len(VERBS))), int(rng.integers(len(NOUNS)))
        if events and rng.random() < 0.5:
            earlier = events[rng.integers(len(events))]
            verb, noun = (earlier[0], noun) if rng.random() < 0.5 else (verb, earlier[1])
        if (verb, noun) not in events:
            events.append((verb, noun))
    return [VERBS[verb] for verb, _ in events], [NOUNS[noun] for _, noun in events]


def _describe(video: _Video, rng: np.random.Generator) -> list[tuple[tuple[float, float], list[str]]]:
    """Returns start and end, and tokens, of each sentence of the video."""
    names = zip(video.verbs, video.nouns, strict=True)
    clauses = [[verb, str(rng.choice(("the", "a"))), noun] for verb, noun in names]
    described = [
        ((start, end), ["person", *clause, "."]) for (start, end), clause in zip(video.bounds, clauses, strict=True)
    ]
    for event in video.pairs:
        joint = ["then"] if rng.random() < 0.5 else ["and", "then"]
        tokens = ["person", *clauses[event], *joint, *clauses[event + 1], "."]
        described.append(((video.bounds[event, 0], video.bounds[event + 1, 1]), tokens))
    return described


def _encode(sentences: list[list[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns classes [M, L] int64, lengths [M] int64 and hiding probabilities [M, L] float32."""
    word_ids = np.zeros((len(sentences), MAX_NUM_WORDS), dtype=np.int64)
    hide_prob = np.zeros((len(sentences), MAX_NUM_WORDS), dtype=np.float32)
    for row, tokens in enumerate(sentences):
        word_ids[row, : len(tokens)] = [_CLASS[token] for token in tokens]
        hide_prob[row, : len(tokens)] = hiding_probabilities(tokens)
    return word_ids, np.count_nonzero(word_ids, axis=1), hide_prob


def _event_features(
    config: PlantedConfig, videos: list[_Video], duration_s: np.ndarray, word_vectors: np.ndarray
) -> np.ndarray:
    """Returns [N, S, F]: every event planted as if its verb and noun were a sentence."""
    event_video = np.repeat(np.arange(len(videos)), NUM_EVENTS)
    names = [pair for video in videos for pair in zip(video.verbs, video.nouns, strict=True)]
    return planted_features(
        durations_s=duration_s,
        sample_video=event_video,
        moment_s=np.concatenate([video.bounds for video in videos]) * duration_s[event_video, None],
        word_ids=np.array([[_CLASS[verb], _CLASS[noun]] for verb, noun in names]),
        word_vectors=word_vectors,
        num_segments=config.num_segments,
        frame_dim=config.frame_dim,
        noise=config.noise,
        seed=config.seed,
    )


def _provenance(config: PlantedConfig, num_samples: int) -> dict[str, object]:
    return {
        "name": "planted",
        "protocol": "embedded planted moments",
        "counts": {"videos": config.num_videos, "samples": num_samples},
        "options": {
            "num_videos": config.num_videos,
            "num_segments": config.num_segments,
            "frame_dim": config.frame_dim,
            "noise": config.noise,
            "seed": config.seed,
        },
    }
