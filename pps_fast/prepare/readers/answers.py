"""Files of answers to queries, a line of JSON each, in the forms of the field (see `eval.answers`); and the queries."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pps_fast.eval.answers import CHOSEN, MAX_WINDOWS, RANKED, SUBMISSION, Answer, Query
from pps_fast.prepare.readers.annotations import (
    as_number,
    as_query_id,
    as_text,
    detect_annotation_format,
    read_annotations,
    read_durations,
)
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.protocols import apply_protocol
from pps_fast.prepare.readers.textfiles import read_lines
from pps_fast.reading import cut, reading

_REMEDY = "correct the line, or fetch the file again"


def read_queries(path: Path, durations: Iterable[Path], protocol: str) -> list[Query]:
    """Reads annotated queries in any form that `prepare` reads; the windows are those that the protocol admits.

    Args:
        path: annotations.
        durations: csv files with the lengths of videos, for the format that has none of its own.
        protocol: a key of `protocols.PROTOCOLS`.
    Raises:
        ValueError: for a file that cannot be read or has bad rows; the message names file and row.
    """
    problems = Problems(can_skip=False)
    lengths = read_durations(durations, problems)
    rows = read_annotations(path, detect_annotation_format(path), lengths, problems)
    kept = {row.where: row.windows for row in apply_protocol(rows, protocol, problems)[0]}
    problems.settle()
    if not rows:
        raise ValueError(f"{path}: no annotated query; name the file of the annotations")
    return [
        Query(
            query_id=row.query_id,
            video_id=row.video_id,
            sentence=row.sentence,
            duration_s=row.duration_s,
            windows=kept.get(row.where, ()),
            is_counted=row.where in kept,
        )
        for row in rows
    ]


def read_answers(path: Path) -> list[Answer]:
    """Reads every line of a file of answers.

    Raises:
        ValueError: in one sentence with the line, for a file that cannot be read, a line of another form, a time that
            is not finite, a window that ends before it starts, or two answers to one query.
    """
    answers: list[Answer] = []
    lines: dict[str, str] = {}
    with reading(path):
        for where, line in read_lines(path):
            answer = _read_line(line, where)
            first = where if answer.query_id is None else lines.setdefault(str(answer.query_id), where)
            if first != where:
                what = f"a second answer to query {cut(str(answer.query_id), 60)!r}, after {first.rpartition(', ')[2]}"
                raise ValueError(f"{where}: {what}; {_REMEDY}")
            answers.append(answer)
        if not answers:
            raise ValueError(f"{path}: empty; expected a line of JSON for each query")
    return answers


def _read_line(line: str, where: str) -> Answer:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = "not a line of JSON; write one object for each query, or fetch the file again"
        raise ValueError(f"{where}: {what}") from error
    if not isinstance(row, dict) or not {SUBMISSION, RANKED} & row.keys():
        what = f"no answer, which has {SUBMISSION} or {RANKED}"
        raise ValueError(f"{where}: {what}; name a file of answers in one of the field's forms")
    try:
        return _answer(row, where)
    except (ValueError, TypeError) as error:
        detail = f" ({error})" if str(error) else ""
        what = f"not an answer as expected{detail}: windows are [start, end, score] in seconds, start <= end"
        raise ValueError(f"{where}: {what}; {_REMEDY}") from error


def _answer(row: dict[str, Any], where: str) -> Answer:
    listed = row[SUBMISSION] if SUBMISSION in row else row[RANKED]
    windows = [_window(values) for values in _list(listed)[:MAX_WINDOWS]]
    has_score = {len(values) > 2 for values in windows}
    if len(has_score) > 1:
        raise ValueError("some windows have a score and some have none")
    # sorting is stable, so that equal scores, and absent ones, keep the file's order
    ranked = sorted(windows, key=lambda values: -values[2]) if True in has_score else windows
    chosen = windows[0] if windows else None
    if SUBMISSION not in row and row.get(CHOSEN) is not None:
        chosen = _window(row[CHOSEN])
    query_id, video_id, sentence = as_query_id(row.get("qid")), row.get("vid"), row.get("query")
    if query_id is None and (video_id is None or sentence is None):
        raise ValueError("neither qid nor vid and query")
    return Answer(
        query_id=query_id,
        video_id=None if video_id is None else as_text(video_id),
        sentence=None if sentence is None else as_text(sentence).strip(),
        chosen=None if chosen is None else (chosen[0], chosen[1]),
        windows=tuple((start, end) for start, end, *_ in ranked),
        where=where,
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("windows are no list")
    return value


def _window(values: Any) -> tuple[float, ...]:
    """Returns start and end, and the score where there is one."""
    numbers = tuple(as_number(value) for value in _list(values))
    if not 2 <= len(numbers) <= 3:
        raise ValueError(f"a window of {len(numbers)} numbers")
    if numbers[0] > numbers[1]:
        raise ValueError(f"a window from {numbers[0]:g} to {numbers[1]:g}")
    return numbers
