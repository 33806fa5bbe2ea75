"""Answers to queries as files have them, and the forms in which the field writes them. Importing this loads no torch.

full: QVHighlights' submission form, with what pairs and scores each line; see `report.write_predictions`.
qvhighlights: that form alone, {"qid", "query", "vid", "pred_relevant_windows": [[start_s, end_s, score], ...]}.
ranked_windows: the answer and the ranking apart, {"qid", "vid", "query", "duration", "relevant_windows",
"predicted_window": [start_s, end_s], "ranked_predicted_windows": [[start_s, end_s, score], ...]}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

PredictionsForm = Literal["full", "qvhighlights", "ranked_windows"]
SUBMISSION, RANKED, CHOSEN = "pred_relevant_windows", "ranked_predicted_windows", "predicted_window"
"""fields with the windows of an answer"""

MAX_WINDOWS = 10
"""windows of an answer that count, the first in the file's order, as in QVHighlights' evaluation"""

Window = tuple[float, float]
"""start and end in seconds"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One line of a file of answers.

    Attributes:
        query_id: name or number of the query, or None.
        video_id, sentence: what was asked, None where the file does not say.
        chosen: start and end in seconds of the one answer; None for a line without any window.
        windows: start and end of at most MAX_WINDOWS moments, by falling score.
        where: file and line.
    """

    query_id: str | int | None
    video_id: str | None
    sentence: str | None
    chosen: Window | None
    windows: tuple[Window, ...]
    where: str


@dataclass(frozen=True, kw_only=True)
class Query:
    """One annotated query.

    Attributes:
        query_id: its name or number, or None.
        video_id, sentence: what is asked.
        duration_s: length of the video.
        windows: start and end in seconds of what it describes; none where it has no times.
        is_counted: whether the protocol counts it.
    """

    query_id: str | int | None
    video_id: str
    sentence: str
    duration_s: float
    windows: tuple[Window, ...]
    is_counted: bool = True

    @property
    def is_scored(self) -> bool:
        """Whether there is something to compare an answer with."""
        return self.is_counted and bool(self.windows)


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The answers of one file to B queries.

    Attributes:
        name: of the file, as the table shows it.
        answers: of each query; None where the file has none.
        num_unused: lines of the file that answer no scored query.
    """

    name: str
    answers: list[Answer | None]
    num_unused: int


def in_form(line: dict[str, Any], form: PredictionsForm) -> dict[str, Any]:
    """Returns a line of the form "full" in another form; see the top of this file."""
    if form == "full":
        return line
    windows = line[SUBMISSION]
    if form == "qvhighlights":
        return {name: line[name] for name in ("qid", "query", "vid", SUBMISSION)}
    return {
        "qid": line["qid"],
        "vid": line["vid"],
        "query": line["query"],
        "duration": line["duration_s"],
        "relevant_windows": line["windows_s"],
        CHOSEN: windows[0][:2],
        "predicted_score": windows[0][2],
        RANKED: sorted(windows, key=lambda window: -window[2]),
    }


def match_answers(name: str, queries: Sequence[Query], answers: Sequence[Answer]) -> Matched:
    """Finds the answer to each query: by its id, or where ids do not agree in video and sentence, by these.

    Several queries with one video and sentence take as many answers in their order, or share a single one.

    Args:
        name: of the file.
        queries: all of the annotations, also those that do not count.
    Returns:
        The answers to the queries that count and have times.
    Raises:
        ValueError: where no answer belongs to a query, or several answers to one video and sentence do not tell which.
    """
    by_id = {str(answer.query_id): answer for answer in answers if answer.query_id is not None}
    matched = [None if query.query_id is None else by_id.get(str(query.query_id)) for query in queries]
    pairs = [(query, answer) for query, answer in zip(queries, matched, strict=True) if answer is not None]
    if not pairs or not all(_is_about(answer, query) for query, answer in pairs):
        matched = _match_by_sentence(queries, answers)
    scored = [answer for query, answer in zip(queries, matched, strict=True) if query.is_scored]
    if scored and all(answer is None for answer in scored):
        query, answer = queries[0], answers[0]
        shown = f"the first asks {query.sentence[:60]!r} of video {query.video_id[:60]!r}"
        raise ValueError(
            f"{answer.where}: neither this line nor another answers a query of the annotations that is scored "
            f"({shown}); name the annotations of these answers"
        )
    used = {answer.where for answer in scored if answer is not None}
    return Matched(name=name, answers=scored, num_unused=len(answers) - len(used))


def _is_about(answer: Answer, query: Query) -> bool:
    is_video = answer.video_id in (None, query.video_id)
    return is_video and (answer.sentence is None or _words(answer.sentence) == _words(query.sentence))


def _words(sentence: str) -> str:
    return " ".join(sentence.lower().split())


def _match_by_sentence(queries: Sequence[Query], answers: Sequence[Answer]) -> list[Answer | None]:
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        if answer.video_id is not None and answer.sentence is not None:
            groups.setdefault((answer.video_id, _words(answer.sentence)), []).append(answer)
    asked: dict[tuple[str, str], list[int]] = {}
    for index, query in enumerate(queries):
        asked.setdefault((query.video_id, _words(query.sentence)), []).append(index)
    matched: list[Answer | None] = [None] * len(queries)
    for pair, positions in asked.items():
        group = groups.get(pair, [])
        if len(group) > 1 and len(group) != len(positions):
            what = f"{len(group)} answers to a sentence that the annotations have {len(positions)} times"
            raise ValueError(f"{group[-1].where}: {what}, so that it is unclear which is which; give the lines a qid")
        for order, position in enumerate(positions if group else []):
            matched[position] = group[order % len(group)]
    return matched
