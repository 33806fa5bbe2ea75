"""Feature readers and the resampling to segments."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pps_fast.prepare.readers.features import (
    FEATURE_READERS,
    BadVideo,
    as_float16,
    checked_frames,
    detect_features_format,
    open_features,
    resample,
    segment_edges,
)
from tests.support.shared import shared_path

GOLDEN = Path(__file__).parents[2] / "golden" / "kernels_f64.npz"
VIDEOS = {"v_1": np.arange(12.0, dtype=np.float32).reshape(4, 3), "v_2": np.ones((1, 3), dtype=np.float32)}


def store(folder: Path, file_format: str, suffix: str = "", key: str = "features") -> Path:
    """Writes VIDEOS in a format."""
    if file_format.startswith("hdf5"):
        with h5py.File(folder / "x.hdf5", "w") as file:
            for name, frames in VIDEOS.items():
                file[name + suffix if file_format == "hdf5" else f"{name}{suffix}/{key}"] = frames
        return folder / "x.hdf5"
    for name, frames in VIDEOS.items():
        path = folder / f"{name}{suffix}.{file_format}"
        if file_format == "npy":
            np.save(path, frames[:, None, None, :].astype(np.float64))
        elif file_format == "npz":
            np.savez(path, **{key: frames.astype(np.float16)})
        else:
            torch.save(torch.from_numpy(frames).bfloat16(), path)
    return folder


@pytest.mark.parametrize("suffix", ["", "__ViT-B_32__fps_1"])
@pytest.mark.parametrize("file_format", FEATURE_READERS)
def test_every_form_is_recognised_and_gives_the_same_frames(file_format, suffix, tmp_path):
    path = store(tmp_path, file_format, suffix)
    assert detect_features_format(path) == file_format
    with open_features(path, suffix=suffix) as reader:
        assert reader.ids() == set(VIDEOS)
        for name, frames in VIDEOS.items():
            got = reader.read(name)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, frames)


@pytest.mark.parametrize("file_format", ["hdf5_group", "npz"])
def test_a_key_chooses_among_entries(file_format, tmp_path):
    path = store(tmp_path, file_format, key="c3d")
    with open_features(path, key="c3d") as reader:
        np.testing.assert_array_equal(reader.read("v_1"), VIDEOS["v_1"])
    with open_features(path, key="i3d") as reader, pytest.raises(BadVideo, match=r"'i3d' \(it has c3d\)"):
        reader.read("v_1")


def test_a_key_chooses_among_the_tensors_of_a_pt_file(tmp_path):
    torch.save({"a": torch.ones(2, 3), "b": torch.zeros(2, 3)}, tmp_path / "v.pt")
    with open_features(tmp_path, key="b") as reader:
        assert not reader.read("v").any()
    with open_features(tmp_path) as reader, pytest.raises(BadVideo, match="holds a dict of a, b, not a tensor"):
        reader.read("v")


def test_ambiguous_or_empty_places_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        open_features(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no .npy, .npz or .pt files; name the format"):
        open_features(tmp_path)
    with pytest.raises(ValueError, match="expected a folder of .npy files"):
        open_features(store(tmp_path, "hdf5"), file_format="npy")
    store(tmp_path, "npy")
    store(tmp_path, "npz")
    with pytest.raises(ValueError, match="holds .npy, .npz; name the format"):
        open_features(tmp_path)
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(ValueError, match="without any video"):
        open_features(tmp_path / "empty.h5")
    with pytest.raises(ValueError, match="holds no data sets; name the features with --feature-key"):
        open_features(tmp_path / "empty.h5", file_format="hdf5_group")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"shape \[5\], expected \[frames, width\]"),
        (np.zeros((0, 5)), "no frames"),
        (np.zeros((5, 0)), "no frames"),
        (np.zeros((5, 2, 3)), r"shape \[5, 2, 3\]"),
        (np.array([["a"]]), "expected numbers"),
        (np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]]), "2 NaN or infinite values, the first in frame 1"),
    ],
)
def test_arrays_that_are_no_frames_are_refused(array, message):
    with pytest.raises(BadVideo, match=message):
        checked_frames(array)


def test_axes_of_size_one_between_are_removed_but_not_a_single_frame():
    assert checked_frames(np.zeros((7, 1, 1, 5))).shape == (7, 5)
    assert checked_frames(np.zeros((1, 1, 5))).shape == (1, 5)
    assert checked_frames(np.zeros((7, 1))).shape == (7, 1)


def loop_resample(frames: np.ndarray, num_segments: int) -> np.ndarray:
    """The rule, segment by segment."""
    edges = [min(round(j / num_segments * len(frames)), len(frames) - 1) for j in range(num_segments + 1)]
    rows = []
    for start, end in zip(edges, edges[1:], strict=False):
        inside = [frames[i].astype(np.float64) for i in range(start, end)]
        rows.append(sum(inside) / len(inside) if inside else frames[start].astype(np.float64))
    return np.array(rows)


@pytest.mark.parametrize("num_segments", [1, 8, 200])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 8, 45, 100, 199, 200, 201, 300, 401, 1000])
def test_resampling_equals_the_loop(num_frames, num_segments):
    frames = np.random.default_rng(num_frames).standard_normal((num_frames, 3)).astype(np.float32)
    got = resample(frames, num_segments)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, loop_resample(frames, num_segments), rtol=0, atol=1e-14)


def test_resampling_equals_the_published_code():
    golden = np.load(GOLDEN)
    cases = [name.removesuffix("/x") for name in golden.files if name.startswith("resample/") and name.endswith("/x")]
    assert len(cases) == 6
    for case in cases:
        frames, expected = golden[f"{case}/x"], golden[f"{case}/y"]
        np.testing.assert_array_equal(segment_edges(len(frames), 200), golden[f"{case}/edges"])
        # the published means are float32
        np.testing.assert_allclose(resample(frames, 200), expected, rtol=0, atol=3e-7)


def test_edges_are_within_half_a_frame_of_exact_and_within_the_video():
    for num_frames in range(1, 500):
        edges = segment_edges(num_frames, 200)
        assert edges[0] == 0 and edges[-1] == num_frames - 1 and (np.diff(edges) >= 0).all()
        exact = [Fraction(j * num_frames, 200) for j in range(200)]
        assert all(
            abs(int(edge) - at) <= Fraction(1, 2) or edge == num_frames - 1
            for edge, at in zip(edges, exact, strict=False)
        )


def test_float16_is_refused_beyond_its_range_and_exact_within():
    np.testing.assert_array_equal(as_float16(np.array([[65504.0, -1.5]])), np.array([[65504, -1.5]], dtype=np.float16))
    for value in (65505.0, -1e6):
        with pytest.raises(BadVideo, match="beyond the float16 range of 65504"):
            as_float16(np.array([[0.0, value]]))


def test_values_beyond_float32_are_called_too_large_and_not_nan():
    with pytest.raises(BadVideo, match="has the value inf, beyond the float16 range"):
        as_float16(resample(checked_frames(np.full((2, 2), 1e300)), 4))


def test_a_folder_of_real_clip_files_equals_the_joined_file():
    joined = shared_path("data/features/charades_sta_test_clip_vitb32_1fps.f16.hdf5")
    folder = joined.parent
    with (
        open_features(joined) as all_videos,
        open_features(folder, file_format="npz", key="image_embeddings", suffix="__ViT-B_32__fps_1") as two,
    ):
        assert len(all_videos.ids()) == 1334 and two.ids() == {"3MSZA", "Y1HGC"}
        for video in two.ids():
            np.testing.assert_allclose(two.read(video), all_videos.read(video), rtol=1e-3, atol=1e-4)
