"""Annotation files: who says what about which seconds of which video; `annotation_forms` has their forms."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pps_fast.data.record import SPLITS
from pps_fast.prepare.readers.annotation_forms import ANNOTATION_READERS, MALFORMED, PLAIN_REQUIRED, ROWS, Values
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.textfiles import read_csv, read_lines, read_text
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
        split: to which the row says it belongs, or None.
    """

    video_id: str
    duration_s: float
    windows: tuple[Window, ...]
    sentence: str
    where: str
    query_id: str | int | None = None
    split: str | None = None


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


def detect_annotation_format(path: Path) -> str:
    """Names the format of an annotation file from its extension, for json from its first character.

    Raises:
        ValueError: when neither tells.
    """
    simple = {".txt": "charades_txt", ".csv": "plain_csv"}
    suffix = path.suffix.lower()
    if suffix in simple:
        return simple[suffix]
    if suffix == ".jsonl":
        return "plain_jsonl" if _is_plain(path) else "qvhighlights_jsonl"
    if suffix == ".json":
        is_object = read_text(path).lstrip().startswith("{")
        return "activitynet_json" if is_object else "published_json"
    known = ", ".join(ANNOTATION_READERS)
    raise ValueError(f"{path}: the name does not tell the annotation format; name it with --annotation-format: {known}")


def _is_plain(path: Path) -> bool:
    """Whether the first line of a file is of the plain form."""
    try:
        row = json.loads(next((line for _, line in read_lines(path)), ""))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.keys() >= set(PLAIN_REQUIRED)


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
        except MALFORMED:
            value = parse.args[0] if isinstance(parse, partial) else ""
            what = f"not a row of the format {file_format}, such as {ROWS[file_format]}: {cut(str(value), 100)}"
            problems.add("malformed row", where, what)
            continue
        kept.extend([annotation] if annotation else [])
    return kept


def _annotation(where: str, values: Values, problems: Problems) -> Annotation | None:
    if values.duration is None:
        remedy = "name its csv with --durations, or features that `python -m pps_fast.features` made of it"
        problems.add("no duration", where, f"video {values.video_id} has no length; {remedy}")
        return None
    return Annotation(
        video_id=as_text(values.video_id),
        duration_s=as_number(values.duration),
        windows=tuple((as_number(start), as_number(end)) for start, end in values.windows),
        sentence=as_text(values.sentence).strip(),
        where=where,
        query_id=as_query_id(values.query_id),
        split=None if values.split is None else _as_split(values.split),
    )


def _as_split(value: Any) -> str:
    if value not in SPLITS:
        raise ValueError(f"the split {value!r}")
    return str(value)


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
