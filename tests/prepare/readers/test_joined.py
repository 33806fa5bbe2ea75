"""Several sources of features joined as Moment-DETR joins them; one source taken as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pps_fast.prepare.feature_options import FeatureSource
from pps_fast.prepare.readers.features import FeatureReader
from pps_fast.prepare.readers.frames import BadVideo
from pps_fast.prepare.readers.joined import CUT, JoinedReader, open_sources, unit_rows
from tests.support.shared import shared_path


def _source(folder: Path, name: str, **videos: np.ndarray) -> FeatureSource:
    (folder / name).mkdir()
    for video, frames in videos.items():
        np.savez(folder / name / f"{video}.npz", features=frames)
    return FeatureSource(name=name, path=folder / name)


def _frames(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def test_sources_are_scaled_cut_to_the_shortest_and_put_side_by_side(tmp_path: Path) -> None:
    first, second = _frames(7, 3), _frames(6, 2, seed=1)
    second[4] = 0
    sources = [_source(tmp_path, "a", v=first, w=first), _source(tmp_path, "b", v=second, u=second, w=first[:, :2])]
    with open_sources(sources) as reader:
        assert reader.ids() == {"v", "w"} and reader.name == "a + b" and reader.file_format == "npz + npz"
        assert reader.lacking("u").name == "a"
        joined = reader.read("v")
        for row in range(6):
            np.testing.assert_allclose(joined[row, :3], first[row] / np.linalg.norm(first[row]), rtol=1e-6)
            expected = second[row] / (np.linalg.norm(second[row]) or 1.0)
            np.testing.assert_allclose(joined[row, 3:], expected, rtol=1e-6)
        assert joined.shape == (6, 5) and joined.dtype == np.float32
        reader.read("w")
        assert isinstance(reader, JoinedReader) and reader.checks() == {CUT: 1}
        reader.forget()
        assert reader.checks() == {}


def test_one_source_is_read_as_without_sources(tmp_path: Path) -> None:
    frames = _frames(5, 3)
    with open_sources([_source(tmp_path, "a", v=frames)]) as reader:
        assert isinstance(reader, FeatureReader)
        np.testing.assert_array_equal(reader.read("v"), frames)


def test_what_is_wrong_in_a_source_is_told_with_its_name(tmp_path: Path) -> None:
    sources = [
        _source(tmp_path, "a", v=_frames(20, 3), w=_frames(5, 3), u=_frames(5, 3)),
        _source(tmp_path, "b", v=_frames(10, 2), w=np.zeros((5, 2)), u=_frames(5, 4)),
    ]
    with open_sources(sources) as reader:
        with pytest.raises(BadVideo, match="has 20 in a, 10 in b frames, which are not of the same times"):
            reader.read("v")
        with pytest.raises(BadVideo, match="in the source b has only zeros"):
            reader.read("w")
        with pytest.raises(BadVideo, match="in the source b has features of width 4, expected 2"):
            reader.read("u")


def test_lengths_beyond_float32_squares_are_scaled_too() -> None:
    frames = np.array([[3e30, 4e30], [0, 0], [1e-30, 0]], dtype=np.float32)
    np.testing.assert_allclose(unit_rows(frames), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)


def test_real_clip_and_slowfast_features_of_a_video_are_joined(tmp_path: Path) -> None:
    sources = []
    for name in ("slowfast", "clip"):
        (tmp_path / name).mkdir()
        real = shared_path(f"data/features/qvh_qtyBzFV9yTs_60.0_210.0_{name}.npz")
        (tmp_path / name / "v.npz").symlink_to(real)
        sources.append(FeatureSource(name=name, path=tmp_path / name))
    with open_sources(sources) as reader:
        joined = reader.read("v")
    assert joined.shape == (75, 2304 + 512)
    np.testing.assert_allclose(np.linalg.norm(joined[:, :2304], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(joined[:, 2304:], axis=1), 1, rtol=1e-5)
