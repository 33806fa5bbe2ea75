"""Windows of a long video: equally long, overlapping by half at least, and covering it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pps_fast.files import Note
from pps_fast.ground.segments import segments_of, warn_of_few_rows, window_bounds


@pytest.mark.parametrize(("num_frames", "duration_s", "window_s"), [(100, 50.0, 10.0), (37, 37.0, 9.0), (7, 70.0, 1.0)])
def test_windows_are_equal_overlap_and_cover_the_video(num_frames: int, duration_s: float, window_s: float) -> None:
    bounds = window_bounds(num_frames, duration_s, window_s)
    lengths = {end - first for first, end in bounds}
    assert bounds[0][0] == 0 and bounds[-1][1] == num_frames
    assert lengths == {max(round(num_frames * window_s / duration_s), 1)}
    (length,) = lengths
    steps = np.diff([first for first, _ in bounds])
    assert (steps <= max(length / 2, 1) + 0.5).all()


def test_a_short_video_or_none_asked_for_is_one_window() -> None:
    assert window_bounds(9, 5.0, 5.0) == [(0, 9)] and window_bounds(9, None, None) == [(0, 9)]


def test_a_window_holds_the_mean_of_its_own_frames() -> None:
    frames = np.arange(1.0, 9.0)[:, None]
    windows, start, end = segments_of(frames, 1, 1, 8.0, 4.0)
    assert (start, end) == ((0.0, 0.25, 0.5), (0.5, 0.75, 1.0))
    # the last frame of several is not used, as in `prepare`
    np.testing.assert_array_equal(windows[:, 0, 0], [2.0, 4.0, 6.0])


def test_windows_of_few_rows_are_said_and_a_short_video_as_a_whole_is_not() -> None:
    with pytest.warns(Note, match=r"a window has 2.0 rows of features, too few to find a moment in; .* 4 rows or more"):
        warn_of_few_rows(20, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_few_rows(40, 0.1)
        warn_of_few_rows(2, 1.0)
