"""Answers to questions: ranked moments, each with its score and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

MAX_TOP = 1000
"""most moments of an answer: each is searched for in turn"""
# of two moments of a video that overlap more, the worse one is no further answer
MAX_OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One moment of one video.

    Attributes:
        video: its name, None where the video has none.
        start, end: fractions of the video, in [0, 1].
        start_s, end_s: the same in seconds; None where the video's length is unknown.
        score: by which the model ranks the moments of one stretch of video, the larger the better; reward of the moment
            for an alignment, -C for a model with networks. It cannot be compared between sentences.
        match: probability that the sentence is about the video at all (the stretch that was looked at), where own and
            other videos are equally likely; None where the model cannot tell.
        clarity: share of the training pairs for which the model was less sure where in the video; None likewise.
    """

    video: str | None
    start: float
    end: float
    start_s: float | None
    end_s: float | None
    score: float
    match: float | None
    clarity: float | None


@dataclass(frozen=True, kw_only=True)
class Answer(Sequence[Moment]):
    """Ranked moments for one sentence; a sequence of these, the best one first.

    Attributes:
        sentence: as asked.
        moments: by falling rank.
        unknown_words: words of the sentence that the model does not know, and left out.
        num_cut: known words beyond those that the model reads, which it left out.
    """

    sentence: str
    moments: tuple[Moment, ...]
    unknown_words: tuple[str, ...] = ()
    num_cut: int = 0

    @property
    def match(self) -> float | None:
        """That of the first moment."""
        return self.moments[0].match

    @property
    def clarity(self) -> float | None:
        """That of the first moment."""
        return self.moments[0].clarity

    @overload
    def __getitem__(self, index: int) -> Moment: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Moment, ...]: ...

    def __getitem__(self, index: int | slice) -> Moment | tuple[Moment, ...]:
        return self.moments[index]

    def __len__(self) -> int:
        return len(self.moments)

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.moments)

    def to_dict(self) -> dict[str, Any]:
        """Returns the answer as JSON has it."""
        return {**asdict(self), "match": self.match, "clarity": self.clarity}


def best_moments(candidates: Iterable[Moment], top: int) -> tuple[Moment, ...]:
    """Returns the first `top` of ranked moments that do not overlap a better one of the same video much."""
    chosen: list[Moment] = []
    for moment in candidates:
        if len(chosen) == top:
            break
        if all(other.video != moment.video or _overlap(other, moment) <= MAX_OVERLAP for other in chosen):
            chosen.append(moment)
    return tuple(chosen)


def _overlap(first: Moment, second: Moment) -> float:
    """Intersection over the smallest interval with both; 1 for two equal moments of length 0."""
    inside = min(first.end, second.end) - max(first.start, second.start)
    hull = max(first.end, second.end) - min(first.start, second.start)
    return max(inside, 0.0) / hull if hull > 0 else 1.0
