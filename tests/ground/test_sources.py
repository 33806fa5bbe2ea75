"""Sources of videos: one array, files of many, files of prepare; lengths from wherever they are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pps_fast.data.prepared import write_prepared
from pps_fast.ground.sources import Videos
from pps_fast.prepare.feature_options import FeatureOptions, sources_of
from pps_fast.prepare.readers.extracted import FORMAT
from tests.support.eval_fakes import DATA

FRAMES = np.arange(1.0, 13.0, dtype=np.float32).reshape(6, 2)


def _file(folder: Path) -> Path:
    with h5py.File(folder / "clip.hdf5", "w") as file:
        file["a"], file["b"] = FRAMES, FRAMES[:4]
    return folder / "clip.hdf5"


def _videos(*paths: Path | str, feature_suffix: tuple[str, ...] = (), **options: Any) -> Videos:
    named = FeatureOptions(features=tuple(map(Path, paths)), feature_suffix=feature_suffix)
    return Videos(sources_of(named), **options)


@pytest.mark.parametrize("form", ["npy", "npz", "npz_features"])
def test_an_array_file_is_one_video_with_the_length_that_is_given(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"video.{form[:3]}"
    if form == "npy":
        np.save(path, FRAMES)
    else:
        np.savez(path, **({"x": FRAMES} if form == "npz" else {"features": FRAMES, "other": FRAMES[:1]}))
    with _videos(path, duration_s=12.5) as videos:
        ((name, frames, length),) = list(videos)
    assert (name, length) == ("video", 12.5)
    np.testing.assert_array_equal(frames, FRAMES)


def test_lengths_come_from_the_csv_else_from_the_rate_of_the_features(tmp_path: Path) -> None:
    (tmp_path / "lengths.csv").write_text("id,length\na,7.5\n", encoding="utf-8")
    with _videos(_file(tmp_path), durations=tmp_path / "lengths.csv", frames_per_second=2.0) as videos:
        assert [(name, length) for name, _, length in videos] == [("a", 7.5), ("b", 2.0)]
    with _videos(_file(tmp_path), video="b") as videos:
        assert [(name, len(frames), length) for name, frames, length in videos] == [("b", 4, None)]


def test_a_prepared_file_brings_its_lengths(tmp_path: Path) -> None:
    write_prepared(tmp_path / "data.h5", DATA)
    with _videos(tmp_path / "data.h5", video=DATA.video_ids[3]) as videos:
        ((name, frames, length),) = list(videos)
    assert (name, length) == (DATA.video_ids[3], DATA.duration_s[3])
    np.testing.assert_array_equal(frames, DATA.features[3].astype(np.float32))


def test_files_tell_how_their_features_were_made(tmp_path: Path) -> None:
    recipe = {"encoder": "clip", "fps": 2.0}
    with _videos(_file(tmp_path)) as videos:
        assert videos.recipes == [None]
    with h5py.File(tmp_path / "clip.hdf5", "a") as file:
        file.attrs["format"], file.attrs["recipe"] = FORMAT, json.dumps(recipe)
        for video in file:
            file[video].attrs["duration_s"] = 3.0
    with _videos(tmp_path / "clip.hdf5") as videos:
        assert videos.recipes == [recipe]
    sources = [{"file": "f.h5", "extraction": recipe}, {"file": "g.h5"}]
    write_prepared(tmp_path / "data.h5", replace(DATA, recipe={"sources": sources}))
    with _videos(tmp_path / "data.h5") as videos:
        assert videos.recipes == [recipe, None]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = _file(tmp_path)
    with pytest.raises(ValueError, match="--video c: not in .*clip.hdf5, which has"):
        _videos(path, video="c")
    with pytest.raises(ValueError, match="--video v_a: .* pass --video-prefix v_, which alone would match 1 of 1"):
        _videos(path, video="v_a")
    with pytest.raises(ValueError, match="--duration: clip.hdf5 has 2 videos; name one with --video"):
        _videos(path, duration_s=3.0)
    with pytest.raises(ValueError, match=r"no\.hdf5: no such file or folder"):
        _videos(tmp_path / "no.hdf5")
    np.savez(tmp_path / "two.npz", x=FRAMES, y=FRAMES)
    with _videos(tmp_path / "two.npz") as videos, pytest.raises(ValueError, match="none is named 'features'"):
        list(videos)
    np.save(tmp_path / "nan.npy", FRAMES * np.nan)
    with _videos(tmp_path / "nan.npy") as videos, pytest.raises(ValueError, match=r"nan\.npy, video nan: has 12 NaN"):
        list(videos)


def test_sources_of_one_video_or_of_many_are_joined(tmp_path: Path) -> None:
    np.save(tmp_path / "a_clip.npy", FRAMES)
    np.save(tmp_path / "slow.npy", FRAMES[:5, :1])
    with _videos(f"clip:{tmp_path}/a_clip.npy", f"slow:{tmp_path}/slow.npy", duration_s=4.0) as videos:
        ((name, frames, length),) = list(videos)
    assert (name, frames.shape, length) == ("a_clip", (5, 3), 4.0)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["b.mp4"], file["c.mp4"] = FRAMES, FRAMES
    paths = _file(tmp_path), tmp_path / "other.hdf5"
    with _videos(*paths, feature_suffix=("other:.mp4",)) as videos:
        assert [(name, frames.shape) for name, frames, _ in videos] == [("b", (4, 4))]
    with pytest.raises(
        ValueError, match="no video; clip has a, b, other has b.mp4, c.mp4; pass --feature-suffix other:"
    ):
        _videos(*paths)
