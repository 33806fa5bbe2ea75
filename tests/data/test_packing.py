"""Packing video by video gives the same file as packing an array, and no file where it is not finished."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pps_fast.data.packing import Packing, write_prepared
from pps_fast.data.prepared import PreparedData, read_prepared
from pps_fast.data.record import PreparedSamples
from tests.support.prepared_data import small


def _without_features(data: PreparedData) -> PreparedSamples:
    return PreparedSamples(**{name: value for name, value in vars(data).items() if name not in ("features", "content")})


def test_features_added_one_by_one_give_the_bytes_of_an_array(tmp_path):
    data = small()
    samples = _without_features(data)
    write_prepared(tmp_path / "array.h5", data)
    with Packing(tmp_path / "videos.h5") as packed:
        # begun for data that turned out to be unusable, then for these
        packed.begin((9, 7), samples)
        packed.add(np.ones((9, 7), dtype=np.float16))
        packed.begin((4, 3), replace(samples, provenance={}), room=5)
        for values in data.features:
            packed.add(values)
        packed.finish(samples)
    assert (tmp_path / "videos.h5").read_bytes() == (tmp_path / "array.h5").read_bytes()
    assert read_prepared(tmp_path / "videos.h5").content == data.content


@pytest.mark.parametrize("num_added", [0, 1])
def test_what_is_not_finished_leaves_the_old_file(num_added, tmp_path):
    path = tmp_path / "x.h5"
    write_prepared(path, small())
    before = path.read_bytes()
    for end, message in [("finish", f"{num_added} videos packed of 2"), (None, "its packing was not finished")]:
        with pytest.raises(ValueError, match=f"x.h5: .*{message}"), Packing(path) as packed:
            packed.begin((4, 3), _without_features(small()))
            for _ in range(num_added):
                packed.add(np.zeros((4, 3), dtype=np.float16))
            if end == "finish":
                packed.finish(_without_features(small()))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"] and path.read_bytes() == before


def test_room_for_features_is_asked_for_before_the_first_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    samples = _without_features(small())
    with pytest.raises(ValueError, match="x.h5: needs 15.3 GiB on the disk"), Packing(tmp_path / "x.h5") as packed:
        packed.begin((65_536, 62_500), samples)


def test_an_error_of_somebody_else_within_the_block_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), Packing(tmp_path / "x.h5") as packed:
        packed.begin((4, 3), _without_features(small()))
        (tmp_path / "other").read_text()
    assert not list(tmp_path.iterdir())
