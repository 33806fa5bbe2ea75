"""Ranks the moments of windows of videos for a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from pps_fast.ground.answers import Moment
from pps_fast.ground.scorers import Scored
from pps_fast.ground.segments import EncodedVideo


def rows_of(videos: Sequence[EncodedVideo]) -> list[range]:
    """Returns the rows of each video's windows, in the order of the videos."""
    ends = list(accumulate(len(video.start) for video in videos))
    return [range(end - len(video.start), end) for video, end in zip(videos, ends, strict=True)]


def ranked(scored: Scored, windows: Sequence[tuple[EncodedVideo, int]], index: int, rows: slice) -> Iterator[Moment]:
    """Yields the moments of windows for one sentence: the first ones of all windows, then the second ones, and so on.

    The model's order within a window; rewards of different windows cannot be compared, probabilities can.

    Args:
        windows: video and number of each window within it.
        index: of the sentence.
        rows: of the windows among what was scored.
    """
    # of a whole answer at once: single numbers of a tensor take longer to read than to compute
    spans, score = scored.spans[rows, index].numpy(), scored.score[rows, index].numpy()
    match = None if scored.match is None else scored.match[rows, index].numpy()
    clarity = None if scored.clarity is None else scored.clarity[rows, index].numpy()
    for rank in range(score.shape[1]):
        order = np.argsort(-(score[:, rank] if match is None else match), kind="stable")
        for at in order.tolist():
            yield _moment(
                *windows[at],
                span=spans[at, rank].tolist(),
                score=float(score[at, rank]),
                match=None if match is None else float(match[at]),
                clarity=None if clarity is None else float(clarity[at]),
            )


def _moment(
    video: EncodedVideo,
    number: int,
    *,
    span: list[float],
    score: float,
    match: float | None,
    clarity: float | None,
) -> Moment:
    """Returns a moment of a window of a video; its span is start and end as fractions of the window."""
    offset, length = video.start[number], video.end[number] - video.start[number]
    start, end = (offset + length * share for share in span)
    return Moment(
        video=video.name,
        start=start,
        end=end,
        start_s=None if video.duration_s is None else start * video.duration_s,
        end_s=None if video.duration_s is None else end * video.duration_s,
        score=score,
        match=match,
        clarity=clarity,
    )
