"""Asks a model folder: features of a video and a sentence in, ranked moments in seconds out. No true time is needed.

Letters: v windows of videos, q sentences, n their vectors' width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pps_fast.alignment.confidence import Confidence
from pps_fast.alignment.model import AlignmentModel, uses_words
from pps_fast.config import EvaluationPrecision, PPSConfig
from pps_fast.config_tree import override
from pps_fast.ground.answers import MAX_TOP, Answer, best_moments
from pps_fast.ground.evidence import Evidence
from pps_fast.ground.ranking import ranked, rows_of
from pps_fast.ground.scorers import AlignmentScorer, NetworkScorer, Scored, Scorer
from pps_fast.ground.segments import EncodedVideo, segments_of, warn_of_few_rows, warn_of_long_segments
from pps_fast.ground.sentences import ModelSentences, ModelWords, Queries, encode_queries, read_known
from pps_fast.ground.videos import ModelVideos
from pps_fast.hub.fetch import locate_model
from pps_fast.model import Model
from pps_fast.runs.answering import read_confidence, read_recipe
from pps_fast.runs.checkpoint import find_checkpoint, load_model
from pps_fast.types import FeatureSizes

_NO_NETWORK_MATCH = (
    "this model ranks its proposals by how well they rebuild the sentence, which hardly depends on the video: it "
    "cannot tell whether a sentence is about a video at all; `python -m pps_fast.align` fits a model that can"
)
_NOT_CALIBRATED = (
    "the confidence of this model is not calibrated: it was fitted to too few videos, or by an older pps_fast; "
    "fit or train it to more of them, or again"
)


def load(
    directory: str | Path,
    device: torch.device | str = "cpu",
    sentence_encoder: str | None = None,
    frame_encoders: Sequence[str] = (),
    precision: EvaluationPrecision | None = None,
) -> Grounder:
    """Returns the grounder of a model: one with proposals (PPS, CPL, CNM) or an alignment alone.

    Args:
        directory: a model folder, a run directory, or USER/NAME[@REVISION] of the Hugging Face Hub (extra `hub`).
        device: where it shall compute.
        sentence_encoder: folder, NAME or NAME@REVISION of the encoder of sentences, for a model that was fitted to
            vectors of whole sentences; None for the one that the folder names, loaded when it is first needed.
        frame_encoders: folders or NAMEs of the encoders of frames, one for each source of the model's features, for
            video files; empty for those that the folder names, loaded when they are first needed.
        precision: of the matrix products of networks; None for that of the model's evaluation.
    Raises:
        ValueError: for a folder or an encoder that cannot be used; the message names it.
    """
    folder = find_checkpoint(locate_model(directory))
    model, config, sizes = load_model(folder, device)
    config = override(config, {"inference.precision": precision or config.inference.precision})
    known = read_known(folder, device, config.inference.seed)
    recipe = read_recipe(folder)
    sentences = ModelSentences(recipe.get("sentence_vectors") or {}, sentence_encoder)
    grounder = Grounder(model, config, sizes, known, sentences, read_confidence(folder), recipe)
    grounder.videos = ModelVideos(recipe, device, frame_encoders)
    if sentence_encoder is not None:
        # what is named and cannot be used is told at once
        grounder.require_encoder()
    return grounder


class Grounder:
    """Finds moments of videos that sentences describe; made by `load`.

    Attributes:
        config, sizes: what the model was built from.
        confidence: how its confidence is calibrated, None where it is not.
        no_match: a sentence that says why moments have no match and no clarity, None where they have.
        source_names: of the features that the model was trained with, where these are several joined ones.
        videos: makes features of video files.
    """

    def __init__(
        self,
        model: Model,
        config: PPSConfig,
        sizes: FeatureSizes,
        words: ModelWords,
        sentences: ModelSentences,
        confidence: Confidence | None,
        recipe: dict[str, Any],
    ) -> None:
        self.config, self.sizes, self.confidence = config, sizes, confidence
        self._words, self._sentences = words, sentences
        self.videos = ModelVideos(recipe, words.vectors.device)
        sources = recipe.get("sources", []) if recipe.get("joining") else []
        self.source_names = tuple(str(source["source"]) for source in sources)
        # for messages
        parts = " + ".join(f"{source['source']} {source['width']}" for source in sources)
        self._origin = f" ({parts}, joined)" if parts else ""
        has_alignment = model.alignment is not None
        has_vectors = has_alignment and not uses_words(config.alignment, sizes)
        self._sentence_dim = sizes.sentence_dim if has_vectors else 0
        self._reads_words = not (isinstance(model, AlignmentModel) and has_vectors)
        self.no_match = None if has_alignment else _NO_NETWORK_MATCH
        if has_alignment and confidence is None:
            self.no_match = _NOT_CALIBRATED
        self._scorer: Scorer
        if isinstance(model, AlignmentModel):
            self._scorer = AlignmentScorer(model.alignment, confidence)
        else:
            self._scorer = NetworkScorer(model, config, confidence)

    def require_encoder(self) -> None:
        """Loads the encoder of sentences.

        Raises:
            ValueError: for a model that reads words, or an encoder that cannot be used.
        """
        if not self._sentence_dim:
            raise ValueError("sentence_encoder: the model was trained on words, and reads these alone; leave it out")
        self._sentences.open(self._sentence_dim)

    def encode(
        self,
        frames: Any,
        *,
        duration_s: float | None = None,
        name: str | None = None,
        segment_seconds: float | None = None,
    ) -> EncodedVideo:
        """Encodes a video once, for any number of sentences.

        Args:
            frames: [n, F] features of the video's frames at equal distances in time, array or tensor; they are
                resampled as `python -m pps_fast.prepare` does. Or a video's file, of which such are made.
            duration_s: length of the video in seconds, which a file tells; without it moments are fractions alone.
            name: for answers; of a file its name without the ending.
            segment_seconds: a longer video is divided into windows of this length that overlap by half.
        Raises:
            ValueError: for features that are not of the model's width, not finite or not there.
        Warns:
            Note: where a third of a typical moment is shorter than a segment of the video.
        """
        if duration_s is not None and not 0 < duration_s < float("inf"):
            raise ValueError(f"duration_s = {duration_s}: expected seconds above 0")
        if isinstance(frames, str | Path):
            frames, duration_s, name = self.videos.named(Path(frames), duration_s, name)
        # a number of numpy's would show in answers
        duration_s = None if duration_s is None else float(duration_s)
        if isinstance(frames, torch.Tensor):
            frames = frames.detach().cpu().float().numpy()
        num_segments, width = self.sizes.num_segments, self.sizes.frame_dim
        windows, start, end = segments_of(frames, num_segments, width, duration_s, segment_seconds, self._origin)
        warn_of_few_rows(len(frames), float(end[0] - start[0]))
        if duration_s is not None:
            warn_of_long_segments(duration_s * (end[0] - start[0]), num_segments, self.confidence)
        on_device = torch.from_numpy(windows).to(self._words.vectors.device).float()
        encoded = self._scorer.encode(on_device)
        return EncodedVideo(name=name, duration_s=duration_s, start=start, end=end, frames=encoded)

    def ground(
        self,
        frames: Any,
        sentence: str,
        *,
        duration_s: float | None = None,
        top: int = 5,
        segment_seconds: float | None = None,
        sentence_vector: Any = None,
    ) -> Answer:
        """Finds the moments of one video that one sentence describes.

        Args:
            frames: features as `encode` takes them, or what it has returned.
            sentence: in the language of the training; words that the model does not know are named in the answer.
            duration_s, segment_seconds: as in `encode`; not read for an encoded video.
            top: most moments to return; a model with proposals has no more than these.
            sentence_vector: [n] vector of the sentence, for a model that was fitted to such vectors; None to encode it.
        Returns:
            At least one moment, ranked.
        Raises:
            ValueError: as `encode`; for a sentence without any word that the model knows.
        """
        video = frames
        if not isinstance(frames, EncodedVideo):
            video = self.encode(frames, duration_s=duration_s, segment_seconds=segment_seconds)
        return self.ground_all([video], [sentence], top=top, sentence_vectors=sentence_vector)[0][0]

    def ground_all(
        self, videos: Sequence[EncodedVideo], sentences: Sequence[str], *, top: int = 5, sentence_vectors: Any = None
    ) -> list[list[Answer]]:
        """Asks every video every sentence.

        Args:
            videos, sentences: one of each at least.
            top: most moments of an answer.
            sentence_vectors: [q, n] a vector for each of q sentences, for a model that was fitted to such vectors; None
                to encode them.
        Returns:
            A list of answers for each video, one for each sentence.
        """
        _check(videos, top)
        queries, scored = self._score(videos, sentences, top, sentence_vectors)
        return [
            [self._answer([video], [rows], scored, queries, index, top) for index in range(len(sentences))]
            for video, rows in zip(videos, rows_of(videos), strict=True)
        ]

    def search(
        self, videos: Sequence[EncodedVideo], sentences: Sequence[str], *, top: int = 5, sentence_vectors: Any = None
    ) -> list[Answer]:
        """Looks for each sentence in all videos; as `ground_all`, with one answer for each sentence.

        The best moment of each video comes before all second ones, by falling match, or score where there is no match.
        """
        _check(videos, top)
        rows = rows_of(videos)
        # where there are more windows than moments asked for, the first one of each is mostly enough
        count = 1 if rows[-1].stop > top else top
        queries, scored = self._score(videos, sentences, count, sentence_vectors)
        answers = [self._answer(videos, rows, scored, queries, index, top) for index in range(len(sentences))]
        if count < top and any(len(answer) < top for answer in answers):
            queries, scored = self._score(videos, sentences, top, sentence_vectors)
            answers = [self._answer(videos, rows, scored, queries, index, top) for index in range(len(sentences))]
        return answers

    def evidence(
        self, videos: Sequence[EncodedVideo], sentence: str, *, count: int = 5, sentence_vector: Any = None
    ) -> list[list[Evidence]]:
        """Returns what answers to a sentence were read from, for each window of each video: curve and proposals.

        Args:
            videos, sentence, sentence_vector: as `ground` takes them.
            count: moments of a window, for an alignment alone; models with proposals have all of these.
        """
        _check(videos, count)
        query = self._queries([sentence], sentence_vector)
        with torch.inference_mode():
            windows = self._scorer.evidence(_joined(videos), query, count)
        return [windows[rows.start : rows.stop] for rows in rows_of(videos)]

    def _score(
        self, videos: Sequence[EncodedVideo], sentences: Sequence[str], top: int, vectors: Any
    ) -> tuple[Queries, Scored]:
        queries = self._queries(sentences, vectors)
        with torch.inference_mode():
            return queries, self._scorer.score(_joined(videos), queries, top)

    def _queries(self, sentences: Sequence[str], vectors: Any) -> Queries:
        if vectors is None and self._sentence_dim and sentences:
            vectors = self._sentences.encode(sentences, self._sentence_dim)
        return encode_queries(sentences, self._words, vectors, self._sentence_dim, self._reads_words)

    def _answer(
        self,
        videos: Sequence[EncodedVideo],
        rows: Sequence[range],
        scored: Scored,
        queries: Queries,
        index: int,
        top: int,
    ) -> Answer:
        """Returns the answer to one sentence about some videos, whose windows are these rows of what was scored."""
        windows = [(video, number) for video in videos for number in range(len(video.start))]
        stretch = slice(rows[0].start, rows[-1].stop)
        return Answer(
            sentence=queries.sentences[index],
            moments=best_moments(ranked(scored, windows, index, stretch), top),
            unknown_words=queries.unknown_words[index],
            num_cut=queries.num_cut[index],
        )


def _joined(videos: Sequence[EncodedVideo]) -> torch.Tensor:
    """Returns the windows of all videos, [v, S, F]."""
    return videos[0].frames if len(videos) == 1 else torch.cat([video.frames for video in videos])


def _check(videos: Sequence[EncodedVideo], top: int) -> None:
    if not videos:
        raise ValueError("ground: no video; give one at least")
    if not 1 <= top <= MAX_TOP:
        raise ValueError(f"top = {top}: expected 1 to {MAX_TOP:,}")
