"""Feature readers: the same frames from every form, and the true cause where there are none."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pps_fast.prepare.readers.features import FEATURE_READERS, BadVideo, detect_features_format, open_features
from tests.support.shared import shared_path

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
    torch.save({"a": torch.ones(2, 3), "b": torch.full((2, 3), 2.0)}, tmp_path / "v.pt")
    with open_features(tmp_path, key="b") as reader:
        assert (reader.read("v") == 2).all()
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
