"""Which annotated rows count: the protocols under which results on a data set are published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pps_fast.prepare.readers.annotations import Annotation
from pps_fast.prepare.readers.problems import Problems

# returns the row as it counts, or the reason why the protocol leaves it out; a mistake of the file goes to problems
Rule = Callable[[Annotation, Problems], "Annotation | str | None"]


def _full(item: Annotation, problems: Problems) -> Annotation | str | None:
    if _is_before_zero(item, problems):
        return None
    clipped = replace(item, end_s=min(item.end_s, item.duration_s))
    return clipped if clipped.start_s < clipped.end_s else "start >= end"


def _filtered(item: Annotation, problems: Problems) -> Annotation | str | None:
    if item.end_s > item.duration_s:
        return "end > length"
    return item if 0 <= item.start_s < item.end_s else "start >= end"


def _as_is(item: Annotation, problems: Problems) -> Annotation | str | None:
    if _is_before_zero(item, problems):
        return None
    if item.start_s >= item.end_s:
        problems.add("start >= end", item.where, f"start {item.start_s} is not before end {item.end_s}")
        return None
    if item.start_s >= item.duration_s:
        what = f"start {item.start_s} is not before the video's length {item.duration_s}"
        problems.add("start >= length", item.where, what)
        return None
    return item


def _is_before_zero(item: Annotation, problems: Problems) -> bool:
    if item.start_s < 0:
        problems.add("negative start", item.where, f"start {item.start_s} is below 0 seconds")
    return item.start_s < 0


PROTOCOLS: dict[str, Rule] = {"full": _full, "filtered": _filtered, "as_is": _as_is}


def apply_protocol(
    annotations: list[Annotation], protocol: str, problems: Problems
) -> tuple[list[Annotation], Counter[str]]:
    """Keeps the annotations that a protocol admits.

    "full": the end is clipped to the video's length, then rows with start >= end are left out.
    "filtered": kept if and only if 0 <= start < end <= length.
    "as_is": every row is meant to be kept, also one whose end lies beyond the length.

    Rows that a protocol leaves out by its definition are counted. Rows that are mistakes go to `problems`: a video
    whose length is not above 0 and, where the protocol does not already decide them, a negative start or an
    empty moment.

    Args:
        annotations: rows in file order.
        protocol: a key of PROTOCOLS.
        problems: collects the bad rows.

    Returns:
        The kept annotations in order, and how many rows were left out, by reason.
    """
    kept: list[Annotation] = []
    dropped: Counter[str] = Counter()
    for item in annotations:
        if item.duration_s <= 0:
            problems.add("zero-length video", item.where, f"duration {item.duration_s} is not above 0 seconds")
            continue
        outcome = PROTOCOLS[protocol](item, problems)
        if isinstance(outcome, str):
            dropped[outcome] += 1
        elif outcome is not None:
            kept.append(outcome)
    return kept, dropped


def check_one_duration(annotations: list[Annotation], problems: Problems) -> np.ndarray:
    """Returns [M] bool, whether a row gives its video the length of the video's first row; others go to `problems`."""
    first: dict[str, float] = {}
    agrees = np.ones(len(annotations), dtype=bool)
    for index, item in enumerate(annotations):
        length = first.setdefault(item.video_id, item.duration_s)
        if length != item.duration_s:
            agrees[index] = False
            what = f"video {item.video_id} has length {item.duration_s} here and {length} in an earlier row"
            problems.add("duplicate id", item.where, what)
    return agrees
