"""Protocols: which rows count, on small rows and against the published counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest

from pps_fast.prepare.options import Protocol
from pps_fast.prepare.readers.annotations import Annotation, read_annotations, read_durations
from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.protocols import PROTOCOLS, apply_protocol, check_one_duration
from tests.support.shared import shared_path


def row(start: float, end: float, duration: float = 10.0, video: str = "v") -> Annotation:
    return Annotation(video_id=video, duration_s=duration, windows=((start, end),), sentence="s", where="f, line 1")


def outcome(item: Annotation, protocol: str) -> str | tuple[float, float]:
    problems = Problems(skip=True)
    kept, dropped = apply_protocol([item], protocol, problems)
    problems.settle()
    if kept:
        return kept[0].windows[0]
    return next(iter(dropped), None) or f"bad: {next(iter(problems.skipped))}"


@pytest.mark.parametrize(
    ("start", "end", "full", "filtered", "as_is"),
    [
        (0, 10, (0, 10), (0, 10), (0, 10)),
        (2, 10.01, (2, 10), "end > length", (2, 10.01)),
        (2, 10.99, (2, 10), "end > length", (2, 10.99)),
        (2, 11.5, (2, 10), "end > length", (2, 11.5)),
        (0, 0.01, (0, 0.01), (0, 0.01), (0, 0.01)),
        (3, 3, "start >= end", "start >= end", "bad: start >= end"),
        (5, 3, "start >= end", "start >= end", "bad: start >= end"),
        (10, 12, "start >= end", "end > length", "bad: start >= length"),
        (-1, 3, "bad: negative start", "start >= end", "bad: negative start"),
    ],
)
def test_each_protocol_keeps_clips_drops_or_refuses(start, end, full, filtered, as_is):
    item = row(start, end)
    assert [outcome(item, name) for name in ("full", "filtered", "as_is")] == [full, filtered, as_is]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_video_without_length_is_bad_under_every_protocol(protocol):
    assert outcome(row(0, 1, duration=0.0), protocol) == "bad: zero-length video"


@pytest.mark.parametrize(
    ("protocol", "windows", "left_out"),
    [
        ("full", ((0, 4), (8, 10)), {"windows of several, start >= end,": 1}),
        ("filtered", ((0, 4),), {"windows of several, end > length,": 2}),
    ],
)
def test_each_window_of_a_row_counts_alone(protocol, windows, left_out):
    item = replace(row(0, 4), windows=((0, 4), (8, 10.5), (10, 11)))
    kept, dropped = apply_protocol([item], protocol, Problems())
    assert kept == [replace(item, windows=windows)] and dropped == left_out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_row_without_times_is_kept_and_one_with_a_wrong_window_is_bad(protocol):
    item = replace(row(0, 4), windows=())
    assert apply_protocol([item], protocol, Problems()) == ([item], {})
    wrong = replace(item, windows=((0, 4), (-1, 2)))
    problems = Problems(skip=True)
    kept, _ = apply_protocol([wrong], protocol, problems)
    # the filtered protocol decides such windows itself
    assert kept == ([replace(wrong, windows=((0, 4),))] if protocol == "filtered" else [])


def test_protocols_are_those_of_the_command_line():
    assert set(PROTOCOLS) == set(get_args(Protocol))


def test_rows_that_disagree_on_a_length_are_noted():
    problems = Problems(skip=True)
    rows = [row(0, 1), row(0, 1, duration=11.0), row(0, 1, video="w", duration=11.0), row(1, 2)]
    assert check_one_duration(rows, problems).tolist() == [True, False, True, True]
    problems.settle()
    assert problems.skipped == {"duplicate id": 1}


def read_charades(split: str, problems: Problems) -> list[Annotation]:
    folder = shared_path("data/charades_sta")
    durations = read_durations([folder / f"Charades_v1_{split}.csv"], problems)
    return read_annotations(folder / f"charades_sta_{split}.txt", "charades_txt", durations, problems)


@pytest.mark.parametrize(
    ("split", "raw", "full", "filtered"), [("train", 12408, 12404, 10602), ("test", 3720, 3720, 3158)]
)
def test_charades_counts_are_the_published_ones_and_filtered_equals_the_published_file(split, raw, full, filtered):
    problems = Problems()
    rows = read_charades(split, problems)
    assert len(rows) == raw
    kept, dropped = apply_protocol(rows, "full", problems)
    assert len(kept) == full and sum(dropped.values()) == raw - full
    kept, dropped = apply_protocol(rows, "filtered", problems)
    assert len(kept) == filtered and sum(dropped.values()) == raw - filtered
    problems.settle()
    published = json.loads(shared_path(f"data/charades_sta/pps_{split}.json").read_text())
    assert [[a.video_id, a.duration_s, list(a.windows[0]), a.sentence] for a in kept] == published


def test_activitynet_training_file_has_four_bad_rows_and_keeps_ends_beyond_the_video():
    problems = Problems(skip=True)
    rows = read_annotations(shared_path("data/activitynet/train.json"), "activitynet_json", {}, problems)
    kept, dropped = apply_protocol(rows, "as_is", problems)
    problems.settle()
    assert (len(rows), len(kept), dict(dropped)) == (37421, 37417, {})
    assert problems.skipped == {"start >= end": 4}
    assert sum(a.windows[0][1] > a.duration_s for a in kept) > 0
    with pytest.raises(ValueError, match="v_N7ppHQNikv8"):
        strict = Problems()
        apply_protocol(rows, "as_is", strict)
        strict.settle()
