"""Which annotated rows count: the protocols under which results on a data set are published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pps_fast.prepare.readers.annotations import Annotation, Window
from pps_fast.prepare.readers.problems import Problems

# returns the window as it counts, or the reason why the protocol leaves it out; a mistake of the file goes to problems
Rule = Callable[[Window, Annotation, Problems], "Window | str | None"]


def _full(window: Window, item: Annotation, problems: Problems) -> Window | str | None:
    if _is_before_zero(window, item, problems):
        return None
    start_s, end_s = window[0], min(window[1], item.duration_s)
    return (start_s, end_s) if start_s < end_s else "start >= end"


def _filtered(window: Window, item: Annotation, problems: Problems) -> Window | str | None:
    start_s, end_s = window
    if end_s > item.duration_s:
        return "end > length"
    return window if 0 <= start_s < end_s else "start >= end"


def _as_is(window: Window, item: Annotation, problems: Problems) -> Window | str | None:
    if _is_before_zero(window, item, problems):
        return None
    start_s, end_s = window
    if start_s >= end_s:
        problems.add("start >= end", item.where, f"start {start_s} is not before end {end_s}")
        return None
    if start_s >= item.duration_s:
        what = f"start {start_s} is not before the video's length {item.duration_s}"
        problems.add("start >= length", item.where, what)
        return None
    return window


def _is_before_zero(window: Window, item: Annotation, problems: Problems) -> bool:
    if window[0] < 0:
        problems.add("negative start", item.where, f"start {window[0]} is below 0 seconds")
    return window[0] < 0


PROTOCOLS: dict[str, Rule] = {"full": _full, "filtered": _filtered, "as_is": _as_is}


def apply_protocol(
    annotations: list[Annotation], protocol: str, problems: Problems
) -> tuple[list[Annotation], Counter[str]]:
    """Keeps the annotations that a protocol admits, and of several windows those it admits.

    "full": the end is clipped to the video's length, then rows with start >= end are left out.
    "filtered": kept if and only if 0 <= start < end <= length.
    "as_is": every row is meant to be kept, also one whose end lies beyond the length.

    A row without times is kept under every protocol. Rows (and windows of kept rows) that a protocol leaves out by its
    definition are counted. Rows that are mistakes go to `problems`: a video
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
        outcomes = [PROTOCOLS[protocol](window, item, problems) for window in item.windows]
        windows = tuple(outcome for outcome in outcomes if isinstance(outcome, tuple))
        reasons = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if None in outcomes:
            # a mistake, which is noted
            continue
        if reasons and not windows:
            dropped[reasons[0]] += 1
            continue
        dropped.update(f"windows of several, {reason}," for reason in reasons)
        kept.append(replace(item, windows=windows))
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
