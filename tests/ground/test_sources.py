"""Sources of videos: one array, files of many, files of prepare; lengths from wherever they are known."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.data.prepared import write_prepared
from pps_fast.ground.sources import Videos
from tests.support.eval_fakes import DATA

FRAMES = np.arange(1.0, 13.0, dtype=np.float32).reshape(6, 2)


def _file(folder: Path) -> Path:
    with h5py.File(folder / "clip.hdf5", "w") as file:
        file["a"], file["b"] = FRAMES, FRAMES[:4]
    return folder / "clip.hdf5"


@pytest.mark.parametrize("form", ["npy", "npz", "npz_features"])
def test_an_array_file_is_one_video_with_the_length_that_is_given(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"video.{form[:3]}"
    if form == "npy":
        np.save(path, FRAMES)
    else:
        np.savez(path, **({"x": FRAMES} if form == "npz" else {"features": FRAMES, "other": FRAMES[:1]}))
    with Videos(path, duration_s=12.5) as videos:
        ((name, frames, length),) = list(videos)
    assert (name, length) == ("video", 12.5)
    np.testing.assert_array_equal(frames, FRAMES)


def test_lengths_come_from_the_csv_else_from_the_rate_of_the_features(tmp_path: Path) -> None:
    (tmp_path / "lengths.csv").write_text("id,length\na,7.5\n", encoding="utf-8")
    with Videos(_file(tmp_path), durations=tmp_path / "lengths.csv", frames_per_second=2.0) as videos:
        assert [(name, length) for name, _, length in videos] == [("a", 7.5), ("b", 2.0)]
    with Videos(_file(tmp_path), video="b") as videos:
        assert [(name, len(frames), length) for name, frames, length in videos] == [("b", 4, None)]


def test_a_prepared_file_brings_its_lengths(tmp_path: Path) -> None:
    write_prepared(tmp_path / "data.h5", DATA)
    with Videos(tmp_path / "data.h5", video=DATA.video_ids[3]) as videos:
        ((name, frames, length),) = list(videos)
    assert (name, length) == (DATA.video_ids[3], DATA.duration_s[3])
    np.testing.assert_array_equal(frames, DATA.features[3].astype(np.float32))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = _file(tmp_path)
    with pytest.raises(ValueError, match="--video c: not in .*clip.hdf5, which has"):
        Videos(path, video="c")
    with pytest.raises(ValueError, match="--duration: .* has 2 videos; name one with --video"):
        Videos(path, duration_s=3.0)
    with pytest.raises(ValueError, match=r"no\.hdf5: no such file or folder"):
        Videos(tmp_path / "no.hdf5")
    np.savez(tmp_path / "two.npz", x=FRAMES, y=FRAMES)
    with Videos(tmp_path / "two.npz") as videos, pytest.raises(ValueError, match="none is named 'features'"):
        list(videos)
    np.save(tmp_path / "nan.npy", FRAMES * np.nan)
    with Videos(tmp_path / "nan.npy") as videos, pytest.raises(ValueError, match=r"nan\.npy, video nan: has 12 NaN"):
        list(videos)
