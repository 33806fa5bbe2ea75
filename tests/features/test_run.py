"""Many videos: one's failure is not the others', and what is finished before a Ctrl-C stays finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pps_fast.features.extract import Extractor
from pps_fast.features.run import extract_all
from pps_fast.features.store import open_store
from pps_fast.files import Note
from tests.support.frame_encoders import number_encoder
from tests.support.videos import gray_frames, noisy_frames, require_video_extra, spoiled, write_audio, write_video

require_video_extra()
EXTRACTOR = Extractor(encoder=number_encoder(), fps=1.0)


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    return [write_video(tmp_path / f"{name}.mp4", gray_frames(20 + index)) for index, name in enumerate("abc")]


def test_one_failure_is_not_the_others(videos: list[Path], tmp_path: Path) -> None:
    write_audio(tmp_path / "sound.mp4")
    paths = [videos[0], tmp_path / "sound.mp4", *videos[1:], tmp_path / "none.mp4"]
    with open_store(tmp_path / "f.h5", EXTRACTOR.recipe) as store:
        outcome = extract_all(paths, EXTRACTOR, store, is_shown=False)
    assert sorted(store.finished) == ["a", "b", "c"] and len(outcome.lengths_s) == 3 and outcome.num_rows == 6
    assert [failure.split(":")[0].rpartition("/")[2] for failure in outcome.failures] == ["sound.mp4", "none.mp4"]


def test_a_finished_video_is_never_encoded_again(videos: list[Path], tmp_path: Path) -> None:
    with open_store(tmp_path / "f.h5", EXTRACTOR.recipe) as store:
        extract_all(videos[:2], EXTRACTOR, store, is_shown=False)

    def refuse(frame: np.ndarray) -> np.ndarray:
        raise AssertionError("encoded again")

    idle = replace(EXTRACTOR, encoder=replace(EXTRACTOR.encoder, prepare=refuse))
    with open_store(tmp_path / "f.h5", EXTRACTOR.recipe) as store:
        outcome = extract_all(videos[:2], idle, store, is_shown=False)
    assert outcome.num_before == 2 and not outcome.failures


def test_after_an_interrupt_the_rest_is_left_and_the_finished_ones_are_kept(videos: list[Path], tmp_path: Path) -> None:
    rows = []

    def interrupted(frames: object) -> np.ndarray:
        rows.append(1)
        if len(rows) == 2:
            raise KeyboardInterrupt
        return EXTRACTOR.encoder.run(frames)

    broken = replace(EXTRACTOR, encoder=replace(EXTRACTOR.encoder, run=interrupted))
    with open_store(tmp_path / "f.h5", EXTRACTOR.recipe) as store:
        outcome = extract_all(videos, broken, store, is_shown=False)
    assert outcome.is_interrupted and list(store.finished) == ["a"]


def test_a_damaged_video_that_is_kept_is_told_at_once(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", noisy_frames(200))
    path = spoiled(whole, tmp_path / "b.mp4", 0.5, 0.6)
    extractor = Extractor(encoder=replace(number_encoder(), prepare=lambda frame: np.array([1.0])), fps=2.0)
    with (
        open_store(tmp_path / "f.h5", extractor.recipe) as store,
        pytest.warns(Note, match=r"b\.mp4: damaged: .* its other rows repeat those before them"),
    ):
        extract_all([path], extractor, store, is_shown=False)
    assert list(store.finished) == ["b"]
