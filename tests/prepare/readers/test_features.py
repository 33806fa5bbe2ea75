"""Feature readers: the same frames from every form, and the true cause where there are none."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pps_fast.prepare.readers.features import FEATURE_READERS, detect_features_format, open_features
from pps_fast.prepare.readers.frames import BadVideo
from pps_fast.prepare.readers.naming import Naming
from tests.support.shared import shared_path

VIDEOS = {"v_1": np.arange(12.0, dtype=np.float32).reshape(4, 3), "v_2": np.ones((1, 3), dtype=np.float32)}


def store(folder: Path, file_format: str, suffix: str = "", dataset: str = "features") -> Path:
    """Writes VIDEOS in a format."""
    if file_format.startswith("hdf5"):
        with h5py.File(folder / "x.hdf5", "w") as file:
            for name, frames in VIDEOS.items():
                file[name + suffix if file_format == "hdf5" else f"{name}{suffix}/{dataset}"] = frames
        return folder / "x.hdf5"
    for name, frames in VIDEOS.items():
        path = folder / f"{name}{suffix}.{file_format}"
        if file_format == "npy":
            np.save(path, frames[:, None, None, :].astype(np.float64))
        elif file_format == "npz":
            np.savez(path, **{dataset: frames.astype(np.float16)})
        else:
            torch.save(torch.from_numpy(frames).bfloat16(), path)
    return folder


@pytest.mark.parametrize("suffix", ["", "__ViT-B_32__fps_1"])
@pytest.mark.parametrize("file_format", FEATURE_READERS)
def test_every_form_is_recognized_and_gives_the_same_frames(file_format, suffix, tmp_path):
    path = store(tmp_path, file_format, suffix)
    assert detect_features_format(path) == file_format
    with open_features(path, naming=Naming(suffix=suffix)) as reader:
        assert reader.ids() == set(VIDEOS)
        for name, frames in VIDEOS.items():
            got = reader.read(name)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, frames)


@pytest.mark.parametrize("file_format", ["hdf5_group", "npz"])
def test_a_key_chooses_among_entries(file_format, tmp_path):
    path = store(tmp_path, file_format, dataset="c3d")
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
        open_features(
            folder, file_format="npz", key="image_embeddings", naming=Naming(suffix="__ViT-B_32__fps_1")
        ) as two,
    ):
        assert len(all_videos.ids()) == 1334 and two.ids() == {"3MSZA", "Y1HGC"}
        for video in two.ids():
            np.testing.assert_allclose(two.read(video), all_videos.read(video), rtol=1e-3, atol=1e-4)


def _spoiled(path: Path, spoil) -> None:
    """An HDF5 file of a good video v_1 and a spoiled v_2."""
    with h5py.File(path, "w") as file:
        file["v_1"] = VIDEOS["v_1"]
        spoil(file)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), dtype="f4")
    layout[:] = h5py.VirtualSource("gone.h5", "x", shape=(4, 3))
    file.create_virtual_dataset("v_2", layout)


SPOILED = {
    "never written": (lambda file: file.create_dataset("v_2", (4, 3), "f4"), "has only zeros"),
    "virtual": (_virtual, "'v_2' is virtual"),
    "external storage": (
        lambda file: file.create_dataset("v_2", (4, 3), "f4", external=[("secret", 0, 48)]),
        "is stored in another file",
    ),
    "external link": (lambda file: file.__setitem__("v_2", h5py.ExternalLink("o.h5", "/x")), "a link to another file"),
    "bomb": (
        lambda file: file.create_dataset("v_2", (10**8, 10**4), "f4", chunks=(100, 100)),
        "declares 3.6 TiB but stores 0 bytes",
    ),
    "texts": (lambda file: file.create_dataset("v_2", data=["a", "b"]), "has dtype object, expected numbers"),
    "group": (lambda file: file.create_group("v_2/x"), "'v_2' is a group; it holds x"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_hdf5_videos_that_are_not_plain_data_are_refused_by_name(name, tmp_path):
    spoil, words = SPOILED[name]
    (tmp_path / "secret").write_bytes(b"secret" * 8)
    _spoiled(tmp_path / "x.h5", spoil)
    with open_features(tmp_path / "x.h5") as reader:
        np.testing.assert_array_equal(reader.read("v_1"), VIDEOS["v_1"])
        with pytest.raises(BadVideo, match=words):
            reader.read("v_2")


def test_the_format_is_told_from_the_videos_that_are_asked_for(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a_group/c3d"], file["v_1"] = VIDEOS["v_1"], VIDEOS["v_1"]
    assert detect_features_format(tmp_path / "x.h5") == "hdf5_group"
    assert detect_features_format(tmp_path / "x.h5", asked=["v_9", "v_1"]) == "hdf5"
    with open_features(tmp_path / "x.h5", asked=["v_1"]) as reader:
        assert reader.read("v_1").shape == (4, 3)


def test_one_group_of_all_videos_is_told_in_a_sentence_and_named_by_an_option(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for index in range(3000):
            file[f"all/v_{index}"] = VIDEOS["v_1"]
    with pytest.raises(ValueError, match="the group 'all' holds 3,000 videos; pass --feature-group all$"):
        open_features(path, asked=["v_7"])
    with pytest.raises(ValueError, match="and 2,992 more; .* or pass --feature-group all if these are videos$"):
        open_features(path)
    with pytest.raises(ValueError, match="has no group 'al'; it holds all; correct --feature-group"):
        open_features(path, group="al")
    with open_features(path, group="all", asked=["v_7"]) as reader:
        assert reader.file_format == "hdf5" and len(reader.ids()) == 3000
        np.testing.assert_array_equal(reader.read("v_7"), VIDEOS["v_1"])


TENSORS = {
    "sparse": (torch.eye(3).to_sparse(), "holds a tensor of torch.float32, torch.sparse_coo"),
    "complex": (torch.ones(2, 3, dtype=torch.complex64), "store dense real numbers"),
    "strides of zero": (torch.ones(1).expand(10**9, 4), "more values than it stores"),
    "array": (np.ones((2, 3)), "could run code"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_pt_files_of_other_things_are_refused(name, tmp_path):
    content, words = TENSORS[name]
    torch.save(content, tmp_path / "v.pt")
    with open_features(tmp_path) as reader, pytest.raises(BadVideo, match=words):
        reader.read("v")


def test_tensors_that_want_a_gradient_are_read_and_zero_ends_counted(tmp_path):
    frames = torch.ones(4, 3)
    frames[3] = 0
    torch.save(frames.requires_grad_(True), tmp_path / "v.pt")
    with open_features(tmp_path) as reader:
        assert reader.read("v").sum() == 9
        assert reader.counts == {"videos end in frames of zeros": 1}
