"""Forms of annotations: each is taken apart row by row, and what a form says of itself is a row of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pps_fast.prepare.readers.annotation_forms import ANNOTATION_READERS, MALFORMED, ROWS, Values
from pps_fast.prepare.readers.problems import Problems


def _values(file_format: str, text: str, folder: Path, durations: dict[str, float]) -> list[Values]:
    (folder / "a").write_text(text, encoding="utf-8")
    return [parse() for _, parse in ANNOTATION_READERS[file_format](folder / "a", durations, Problems())]


@pytest.mark.parametrize("file_format", ANNOTATION_READERS)
def test_the_row_that_a_message_shows_is_one_of_its_form(file_format: str, tmp_path: Path) -> None:
    text = ROWS[file_format]
    around = {"published_json": "[{}]", "activitynet_json": "{{{}}}"}.get(file_format, "{}").format(text)
    if file_format == "plain_csv":
        row, header = text.split(" for ")
        around = f"{header}\n{row}\n"
    (values,) = _values(file_format, around, tmp_path, {"3MSZA": 30.0})
    assert values.video_id and values.sentence and len(values.windows) == 1 and values.duration


def test_a_length_of_the_row_wins_over_that_of_the_csv(tmp_path: Path) -> None:
    text = "video,sentence,duration\nv,a,5\nv,a,\nw,a,\n"
    values = _values("plain_csv", text, tmp_path, {"v": 9.0})
    assert [one.duration for one in values] == [5.0, 9.0, None]


def test_what_cannot_be_taken_apart_fails_in_a_way_that_is_expected(tmp_path: Path) -> None:
    for text in ("[]", '"text"', '{"video": "v"}', '{"video": "v", "sentence": "a", "start": 1}', "["):
        with pytest.raises(MALFORMED):
            _values("plain_jsonl", text, tmp_path, {})


def test_times_with_minutes_are_seconds(tmp_path: Path) -> None:
    text = "video,sentence,duration,start,end\nv,a,1:02:03,0:05,1:02.5\n"
    (values,) = _values("plain_csv", text, tmp_path, {})
    assert values.duration == 3723.0 and values.windows == [(5.0, 62.5)]
    for time in ("0:x", "1:2:3:4", "-1:5", "a:05"):
        with pytest.raises(MALFORMED):
            _values("plain_csv", f"video,sentence,start,end\nv,a,{time},9\n", tmp_path, {})
