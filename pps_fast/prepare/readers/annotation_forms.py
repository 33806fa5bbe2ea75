"""Forms of annotation files: each is taken apart into rows of unchecked values.

The field's forms, and a plain one of our own, are read:
    published_json      [["3MSZA", 30.96, [24.3, 30.4], "person turn a light on."], ...]
    charades_txt        3MSZA 24.3 30.4##person turn a light on.        (durations come from a csv: columns id, length)
    activitynet_json    {"v_x": {"duration": 55.15, "timestamps": [[0, 4.14], ...], "sentences": ["Two men ...", ...]}}
    qvhighlights_jsonl  {"vid": "x", "duration": 150, "query": "...", "relevant_windows": [[0.0, 6.9], ...]}
    plain_jsonl         {"video": "x", "sentence": "...", "duration": 30.5, "start": 2, "end": 9, "id": 7}
    plain_csv           the same as columns. Both need video and sentence alone; split is one more
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.textfiles import read_csv, read_json, read_lines


class Values(NamedTuple):
    """What a row holds, not yet checked; the duration is None where a csv has no length for the video."""

    video_id: Any
    duration: Any
    windows: list[tuple[Any, Any]]
    sentence: Any
    query_id: Any = None
    split: Any = None


# where a row stands, and a function that takes it apart or fails on a malformed row
Row = tuple[str, Callable[[], Values]]

PLAIN_REQUIRED = ("video", "sentence")
PLAIN_OPTIONAL = ("duration", "start", "end", "id", "split")
"""columns of the plain form"""

MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""what taking apart a malformed row raises"""


def _published_json(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    rows = read_json(path, problems)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of [video, duration, [start, end], sentence]; name another format")
    for index, row in enumerate(rows):
        yield f"{path.name}, row {index}", partial(_published_row, row)


def _published_row(row: Any) -> Values:
    video_id, duration, times, sentence = row[:4]
    return Values(video_id, duration, _windows([times] if times else []), sentence)


def _charades_txt(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    for where, line in read_lines(path):
        yield where, partial(_charades_line, line, durations)


def _charades_line(line: str, durations: dict[str, float]) -> Values:
    head, sentence = line.split("##", 1)
    video_id, *times = head.split()
    windows = _windows([[float(time) for time in times]] if times else [])
    return Values(video_id, durations.get(video_id), windows, sentence)


def _activitynet_json(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    videos = read_json(path, problems)
    if not isinstance(videos, dict):
        raise ValueError(f"{path}: expected an object of videos; name another format")
    for video_id, video in videos.items():
        where = f"{path.name}, video {video_id}"
        try:
            sentences = video["sentences"]
            pairs = list(zip(video.get("timestamps") or [None] * len(sentences), sentences, strict=True))
            duration = video["duration"]
        except MALFORMED:
            problems.add("malformed row", where, "needs a duration and as many timestamps as sentences")
            continue
        for index, (times, sentence) in enumerate(pairs):
            yield f"{where}, sentence {index}", partial(_published_row, (video_id, duration, times, sentence))


def _qvhighlights_jsonl(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    for where, line in read_lines(path):
        yield where, partial(_qvhighlights_line, line)


def _qvhighlights_line(line: str) -> Values:
    row = _json_row(line)
    windows = _windows(row.get("relevant_windows") or [])
    return Values(row["vid"], row["duration"], windows, row["query"], row.get("qid"))


def _json_row(line: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return row


def _plain_jsonl(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    for where, line in read_lines(path):
        yield where, partial(_plain_line, line, durations)


def _plain_line(line: str, durations: dict[str, float]) -> Values:
    return _plain_row(_json_row(line), durations)


def _plain_csv(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    for where, values in read_csv(path, PLAIN_REQUIRED, PLAIN_OPTIONAL):
        row: dict[str, Any] = {
            name: text.strip() for name, text in zip(PLAIN_REQUIRED + PLAIN_OPTIONAL, values, strict=True) if text
        }
        yield where, partial(_plain_csv_row, row, durations)


def _plain_csv_row(row: dict[str, Any], durations: dict[str, float]) -> Values:
    numbers = {name: _seconds(row[name]) for name in ("duration", "start", "end") if row.get(name)}
    return _plain_row({**row, **numbers}, durations)


def _seconds(text: str) -> float:
    """Returns the seconds of "12.5", "0:12.5" or "1:02:03"."""
    *larger, seconds = text.split(":")
    if len(larger) > 2 or not all(part.isdigit() for part in larger):
        raise ValueError(f"{text!r} is no time; write seconds (12.5), or minutes and seconds (0:12.5)")
    total = 0
    for part in larger:
        total = 60 * (total + int(part))
    return total + float(seconds)


def _plain_row(row: dict[str, Any], durations: dict[str, float]) -> Values:
    video_id, start, end = row["video"], row.get("start"), row.get("end")
    if (start is None) != (end is None):
        raise ValueError("a start without an end, or an end without a start")
    duration = row.get("duration")
    split = {"val": "validation"}.get(row.get("split") or "", row.get("split"))
    return Values(
        video_id,
        durations.get(video_id) if duration is None else duration,
        [] if start is None else [(start, end)],
        row["sentence"],
        row.get("id"),
        split or None,
    )


def _windows(pairs: list[Any]) -> list[tuple[Any, Any]]:
    return [(start, end) for start, end in pairs]


AnnotationReader = Callable[[Path, dict[str, float], Problems], Iterator[Row]]

ANNOTATION_READERS: dict[str, AnnotationReader] = {
    "published_json": _published_json,
    "charades_txt": _charades_txt,
    "activitynet_json": _activitynet_json,
    "qvhighlights_jsonl": _qvhighlights_jsonl,
    "plain_jsonl": _plain_jsonl,
    "plain_csv": _plain_csv,
}


ROWS = {
    "published_json": '["3MSZA", 30.96, [24.3, 30.4], "person turn a light on."]',
    "charades_txt": "3MSZA 24.3 30.4##person turn a light on.",
    "activitynet_json": '"v_x": {"duration": 55.15, "timestamps": [[0, 4.14]], "sentences": ["Two men talk."]}',
    "qvhighlights_jsonl": '{"vid": "x", "duration": 150, "query": "a man talks", "relevant_windows": [[0.0, 6.9]]}',
    "plain_jsonl": '{"video": "x", "sentence": "a man talks", "duration": 30.5, "start": 2.0, "end": 9.5}',
    "plain_csv": "x,a man talks,30.5,2.0,9.5 for video,sentence,duration,start,end",
}
"""what a row of each format looks like, for messages"""
