"""Features of one video: rows in the middle of equal parts, batches that change nothing, damage told and judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pps_fast.features.extract import Extractor, filled, row_times
from tests.support.frame_encoders import number_encoder
from tests.support.videos import gray_frames, noisy_frames, require_video_extra, spoiled, write_video

require_video_extra()


@pytest.mark.parametrize(
    ("duration_s", "fps", "count"), [(10.0, 1.0, 10), (10.4, 1.0, 10), (10.6, 1.0, 11), (0.2, 1.0, 1)]
)
def test_rows_are_the_middles_of_equal_parts(duration_s: float, fps: float, count: int) -> None:
    times = row_times(duration_s, fps, number_encoder())
    assert times.shape == (count, 1)
    np.testing.assert_allclose(times[:, 0], (np.arange(count) + 0.5) * duration_s / count)


def test_frames_of_a_clip_lie_around_the_middle_and_within_the_video() -> None:
    times = row_times(3.0, 1.0, number_encoder(frames=4, span_s=2.0))
    np.testing.assert_allclose(times[1], [0.75, 1.25, 1.75, 2.25])
    np.testing.assert_allclose(times[0], [0.0, 0.25, 0.75, 1.25])
    assert (times >= 0).all() and (times <= 3).all()


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_rows_have_the_frames_of_their_times(batch: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", gray_frames(40))
    told: list[int] = []
    images = Extractor(encoder=number_encoder(), fps=2.0, batch=batch).extract(path, told.append)
    assert images.features[:, 0].tolist() == [3, 8, 13, 18, 23, 28, 33, 38] and images.note is None
    assert sum(told) == 8 and images.duration_s == pytest.approx(4.0)
    clips = Extractor(encoder=number_encoder(frames=2, span_s=1.0), fps=1.0, batch=batch).extract(path)
    # 0.25 and 0.75 s, 1.25 and 1.75 s, ...
    assert clips.features.tolist() == [[3, 8], [13, 18], [23, 28], [33, 38]]


def test_what_cannot_be_read_repeats_the_row_before_or_the_first() -> None:
    rows = np.arange(6, dtype=np.float32)[:, None]
    is_read = np.array([False, False, True, False, True, False])
    assert filled(rows, is_read)[:, 0].tolist() == [2, 2, 2, 2, 4, 4]


def test_a_damaged_video_is_kept_or_refused_by_the_share_that_can_be_read(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", noisy_frames(200))
    extractor = Extractor(encoder=replace(number_encoder(), prepare=lambda frame: np.array([1.0])), fps=2.0)
    slightly = extractor.extract(spoiled(whole, tmp_path / "b.mp4", 0.5, 0.6))
    assert "b.mp4: damaged: 9" in str(slightly.note) and len(slightly.features) == 40
    path = spoiled(whole, tmp_path / "c.mp4", 0.4, 0.7)
    with pytest.raises(ValueError, match=r"c\.mp4: damaged: \d\d % of its 20\.0 s can be read .*less than 90 %"):
        extractor.extract(path)
    assert "the first gap begins at" in str(replace(extractor, readable=0.5).extract(path).note)


def test_features_of_nothing_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", gray_frames(10))
    encoder = replace(number_encoder(), prepare=lambda frame: np.zeros(1))
    with pytest.raises(ValueError, match=r"a\.mp4: its features have nothing in them"):
        Extractor(encoder=encoder, fps=1.0).extract(path)


def test_the_recipe_tells_what_features_depend_on() -> None:
    recipe = Extractor(encoder=number_encoder(frames=2, span_s=1.0), fps=2.0, batch=7).recipe
    assert recipe["encoder"] == "numbers@1" and recipe["fps"] == 2.0 and recipe["clip_frames"] == 2
    assert "batch" not in recipe
