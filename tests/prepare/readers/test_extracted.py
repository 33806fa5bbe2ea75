"""What files of `python -m pps_fast.features` tell besides features: recipe and lengths, and nothing else's does."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.prepare.readers.extracted import FORMAT, read_lengths, told_in
from pps_fast.prepare.readers.features import open_features
from pps_fast.prepare.readers.joined import JoinedReader
from pps_fast.prepare.readers.naming import Naming

RECIPE = {"encoder": "x@1", "fps": 1.0}


def _write(path: Path, lengths: dict[str, object], recipe: str = json.dumps(RECIPE)) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["recipe"] = FORMAT, recipe
        for video, length in lengths.items():
            file[video] = np.ones((3, 2), dtype=np.float32)
            file[video].attrs["duration_s"] = length
    return path


def test_lengths_are_told_under_the_names_of_the_videos(tmp_path: Path) -> None:
    path = _write(tmp_path / "f.h5", {"v_a": 3.0, "v_b": 4.5})
    with h5py.File(path) as file:
        told = told_in(file, Naming(prefix="v_", video_suffix=".mp4"))
    assert told.recipe == RECIPE and told.lengths_s == {"a.mp4": 3.0, "b.mp4": 4.5}


def test_a_length_that_is_none_is_not_told(tmp_path: Path) -> None:
    path = _write(tmp_path / "f.h5", {"a": 0.0, "b": np.nan, "c": "long", "d": [1.0, 2.0], "e": 2.0, "f": np.inf})
    with h5py.File(path, "r+") as file:
        file["g"] = h5py.SoftLink("/a")
        file["h"] = np.ones((3, 2))
        assert read_lengths(file) == {"e": 2.0}


def test_files_of_somebody_else_tell_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"] = np.ones((3, 2))
        file["a"].attrs["duration_s"] = 3.0
    with open_features(tmp_path / "f.h5") as reader:
        assert reader.told.recipe is None and reader.told.lengths_s == {}


@pytest.mark.parametrize("recipe", ["{", "[1]"])
def test_a_damaged_recipe_is_refused(recipe: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"f\.h5: damaged: how its features were made"):
        open_features(_write(tmp_path / "f.h5", {"a": 1.0}, recipe))


def test_of_several_sources_the_first_one_tells_a_length(tmp_path: Path) -> None:
    readers = {
        name: open_features(_write(tmp_path / f"{name}.h5", lengths))
        for name, lengths in (("x", {"a": 1.0}), ("y", {"a": 2.0, "b": 3.0}))
    }
    assert JoinedReader(readers=readers, close=lambda: None).told.lengths_s == {"a": 1.0, "b": 3.0}
