"""Names of videos in features and annotations, and the option that would make them meet."""

from __future__ import annotations

import pytest

from pps_fast.prepare.readers.naming import SAME_NAMES, Naming, hint


def test_parts_of_either_name_are_taken_off_or_put_on() -> None:
    naming = Naming(prefix="f_", suffix="__1fps", video_prefix="v_", video_suffix=".mp4")
    assert naming.video_of("f_abc__1fps") == "v_abc.mp4"
    assert naming.video_of("abc__1fps") is None and naming.video_of("f_abc") is None
    assert SAME_NAMES.video_of("abc") == "abc"
    # parts that would overlap are no name
    assert Naming(prefix="aa", suffix="aa").video_of("aaa") is None
    assert Naming(suffix="x").by_video(["1x", "2", "3x"]) == {"1": "1x", "3": "3x"}


@pytest.mark.parametrize(
    ("asked", "known", "expected"),
    [
        (["v_1", "v_2"], ["1", "2"], "--video-prefix v_, which alone would match 2 of 2"),
        (["1.mp4", "2.mp4"], ["1", "2"], "--video-suffix .mp4, which alone would match 2 of 2"),
        (["1", "2", "3"], ["v_1", "v_2"], "--feature-prefix v_, which alone would match 2 of 3"),
        (["1", "2"], ["1__fps", "2__fps", "9"], "--feature-suffix __fps, which alone would match 2 of 2"),
        (["1", "2"], ["1-rgb", "2-rgb"], "--feature-suffix=-rgb, which alone would match 2 of 2"),
        (["1", "2", "3"], ["10", "20x", "zz"], None),
        (["a", "b"], [], None),
        (["a", "b"], ["c", "d"], None),
        (["", "b"], ["x", "y"], None),
    ],
)
def test_the_one_option_that_matches_most_videos_is_hinted_at(asked, known, expected: str | None) -> None:
    assert hint(asked, known) == expected


def test_a_hint_for_one_of_several_sources_names_it() -> None:
    assert hint(["v_1"], ["1"], "clip:") == "--video-prefix clip:v_, which alone would match 1 of 1"
