"""Prints answers as a table, as one JSON document, or as a line of JSON for each sentence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pps_fast.ground.answers import Answer, Moment
from pps_fast.text_table import plain_table, wrapped

_ABSENT = "-"


def is_missed(answer: Answer, min_match: float) -> bool:
    """Whether the sentence is probably not there: the best match is below `min_match`; False where there is none."""
    best = max((moment.match for moment in answer if moment.match is not None), default=None)
    return best is not None and best < min_match


def format_answer(answer: Answer, min_match: float, columns: int | None) -> str:
    """Returns an answer as plain text.

    Args:
        min_match: below it an answer counts as not there.
        columns: most characters of a line; None is no limit.
    """
    lines = [wrapped(answer.sentence, columns)]
    if answer.unknown_words:
        lines.append(wrapped(f"words that the model does not know: {', '.join(answer.unknown_words)}", columns))
    if answer.num_cut:
        lines.append(wrapped(f"the last {answer.num_cut} words were not read: the sentence is too long", columns))
    if is_missed(answer, min_match):
        lines.append(wrapped(f"not found: no match reaches {min_match:g}; the nearest are", columns))
    header = ["video", "start", "end", "match", "clarity", "score"]
    rows = [header, *(_row(moment) for moment in answer)]
    return "\n".join([*lines, *plain_table(rows, columns)])


def _row(moment: Moment) -> list[str]:
    if moment.start_s is None or moment.end_s is None:
        times = [f"{100 * moment.start:.0f} %", f"{100 * moment.end:.0f} %"]
    else:
        times = [f"{moment.start_s:.1f} s", f"{moment.end_s:.1f} s"]
    confidence = [_ABSENT if value is None else f"{value:.2f}" for value in (moment.match, moment.clarity)]
    return [moment.video or _ABSENT, *times, *confidence, f"{moment.score:.3g}"]


def as_json(answer: Answer, min_match: float) -> dict[str, Any]:
    """Returns an answer with `is_found`, which is null where the model cannot tell."""
    known = answer.match is not None
    return {"is_found": not is_missed(answer, min_match) if known else None, **answer.to_dict()}


def format_json(answers: Sequence[Answer], record: dict[str, Any], min_match: float) -> str:
    """Returns all answers as one document, with what they were made from."""
    return json.dumps({**record, "answers": [as_json(answer, min_match) for answer in answers]}, indent=2)


def format_lines(answers: Sequence[Answer], min_match: float) -> str:
    """Returns a line of JSON for each answer."""
    return "\n".join(json.dumps(as_json(answer, min_match)) for answer in answers)
