"""Annotation files: who says what about which seconds of which video.

Four forms are read:
    published_json      [["3MSZA", 30.96, [24.3, 30.4], "person turn a light on."], ...]
    charades_txt        3MSZA 24.3 30.4##person turn a light on.        (durations come from a csv: columns id, length)
    activitynet_json    {"v_x": {"duration": 55.15, "timestamps": [[0, 4.14], ...], "sentences": ["Two men ...", ...]}}
    qvhighlights_jsonl  {"vid": "x", "duration": 150, "query": "...", "relevant_windows": [[0.0, 6.9], ...]}
                        A query with several windows keeps its first window.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.textfiles import read_csv, read_json, read_lines, read_text
from pps_fast.reading import cut

Window = tuple[float, float]
"""start and end in seconds"""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One sentence and the windows it describes.

    Attributes:
        video_id: name of the video.
        duration_s: length of the video in seconds.
        windows: start and end of each in seconds; an end may lie beyond the video's. None for a row without times.
        sentence: the sentence without surrounding blanks.
        where: file and row it was read from.
        query_id: the row's own name or number, or None.
    """

    video_id: str
    duration_s: float
    windows: tuple[Window, ...]
    sentence: str
    where: str
    query_id: str | int | None = None


# video, duration (None where a csv has no length for it), windows, sentence, query id; not yet checked
Values = tuple[Any, Any, list[tuple[Any, Any]], Any, Any]
# where a row stands, and a function that takes it apart or fails on a malformed row
Row = tuple[str, Callable[[], Values]]

_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def read_durations(paths: Iterable[Path], problems: Problems) -> dict[str, float]:
    """Reads video lengths in seconds from csv files with the columns `id` and `length`.

    Bad rows (no number, not above 0, a second and different length for a video) go to `problems`.

    Raises:
        ValueError: for a file that cannot be read or lacks the columns.
    """
    durations: dict[str, float] = {}
    for path in paths:
        for where, (name, text) in read_csv(path, ("id", "length")):
            video_id = str(name)
            try:
                # an absent text is no number either
                length = as_number(float(text or ""))
            except (TypeError, ValueError):
                problems.add("bad duration", where, f"length {text!r} of video {video_id} is not a finite number")
                continue
            if length <= 0:
                problems.add("zero-length video", where, f"length {text} of video {video_id} is not above 0 seconds")
            elif durations.setdefault(video_id, length) != length:
                what = f"video {video_id} has length {length} here and {durations[video_id]} in an earlier row"
                problems.add("duplicate id", where, what)
    return durations


def _published_json(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    rows = read_json(path, problems)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of [video, duration, [start, end], sentence]; name another format")
    for index, row in enumerate(rows):
        yield f"{path.name}, row {index}", partial(_published_row, row)


def _published_row(row: Any) -> Values:
    video_id, duration, times, sentence = row[:4]
    return video_id, duration, _windows([times] if times else []), sentence, None


def _charades_txt(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    for where, line in read_lines(path):
        yield where, partial(_charades_line, line, durations)


def _charades_line(line: str, durations: dict[str, float]) -> Values:
    head, sentence = line.split("##", 1)
    video_id, *times = head.split()
    windows = _windows([[float(time) for time in times]] if times else [])
    return video_id, durations.get(video_id), windows, sentence, None


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
        except _MALFORMED:
            problems.add("malformed row", where, "needs a duration and as many timestamps as sentences")
            continue
        for index, (times, sentence) in enumerate(pairs):
            yield f"{where}, sentence {index}", partial(_published_row, (video_id, duration, times, sentence))


def _qvhighlights_jsonl(path: Path, durations: dict[str, float], problems: Problems) -> Iterator[Row]:
    for where, line in read_lines(path):
        yield where, partial(_qvhighlights_line, line)


def _qvhighlights_line(line: str) -> Values:
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return row["vid"], row["duration"], _windows(row.get("relevant_windows") or []), row["query"], row.get("qid")


def _windows(pairs: list[Any]) -> list[tuple[Any, Any]]:
    return [(start, end) for start, end in pairs]


AnnotationReader = Callable[[Path, dict[str, float], Problems], Iterator[Row]]

ANNOTATION_READERS: dict[str, AnnotationReader] = {
    "published_json": _published_json,
    "charades_txt": _charades_txt,
    "activitynet_json": _activitynet_json,
    "qvhighlights_jsonl": _qvhighlights_jsonl,
}


ROWS = {
    "published_json": '["3MSZA", 30.96, [24.3, 30.4], "person turn a light on."]',
    "charades_txt": "3MSZA 24.3 30.4##person turn a light on.",
    "activitynet_json": '"v_x": {"duration": 55.15, "timestamps": [[0, 4.14]], "sentences": ["Two men talk."]}',
    "qvhighlights_jsonl": '{"vid": "x", "duration": 150, "query": "a man talks", "relevant_windows": [[0.0, 6.9]]}',
}
"""what a row of each format looks like, for messages"""


def detect_annotation_format(path: Path) -> str:
    """Names the format of an annotation file from its extension, for json from its first character.

    Raises:
        ValueError: when neither tells.
    """
    simple = {".txt": "charades_txt", ".jsonl": "qvhighlights_jsonl"}
    suffix = path.suffix.lower()
    if suffix in simple:
        return simple[suffix]
    if suffix == ".json":
        is_object = read_text(path).lstrip().startswith("{")
        return "activitynet_json" if is_object else "published_json"
    known = ", ".join(ANNOTATION_READERS)
    raise ValueError(f"{path}: the name does not tell the annotation format; name it with --annotation-format: {known}")


def read_annotations(path: Path, file_format: str, durations: dict[str, float], problems: Problems) -> list[Annotation]:
    """Reads all rows of an annotation file in their order; malformed rows go to `problems`.

    Args:
        path: the file.
        file_format: a key of ANNOTATION_READERS.
        durations: lengths of videos in seconds, for the format that has none of its own.
        problems: collects the bad rows.

    Raises:
        ValueError: for a file that cannot be read at all.
    """
    kept = []
    for where, parse in ANNOTATION_READERS[file_format](path, durations, problems):
        try:
            annotation = _annotation(where, parse(), problems)
        except _MALFORMED:
            value = parse.args[0] if isinstance(parse, partial) else ""
            what = f"not a row of the format {file_format}, such as {ROWS[file_format]}: {cut(str(value), 100)}"
            problems.add("malformed row", where, what)
            continue
        kept.extend([annotation] if annotation else [])
    return kept


def _annotation(where: str, values: Values, problems: Problems) -> Annotation | None:
    video_id, duration, windows, sentence, query_id = values
    if duration is None:
        problems.add("no duration", where, f"video {video_id} has no length; name its csv with --durations")
        return None
    return Annotation(
        video_id=as_text(video_id),
        duration_s=as_number(duration),
        windows=tuple((as_number(start), as_number(end)) for start, end in windows),
        sentence=as_text(sentence).strip(),
        where=where,
        query_id=as_query_id(query_id),
    )


def as_query_id(value: Any) -> str | int | None:
    """Returns the name or number of a query, or None; raises TypeError for another kind of value."""
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise TypeError
    return value


def as_text(value: Any) -> str:
    """Returns a text that can be written as UTF-8; raises TypeError or ValueError for another value."""
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    # half of a surrogate pair is a UnicodeEncodeError, which is a ValueError
    value.encode()
    return value


def as_number(value: Any) -> float:
    """Returns a finite number as a float; raises ValueError for another value."""
    # a whole number may be beyond every float
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError
    return float(value)
