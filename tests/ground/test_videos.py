"""Video files as a model takes them: by the recipe of its training, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pps_fast.features.encoders import open_encoder
from pps_fast.features.extract import Extractor
from pps_fast.files import Note
from pps_fast.ground.videos import CACHE, ModelVideos
from tests.support.frame_encoders import clip_folder
from tests.support.videos import noisy_frames, require_video_extra, spoiled, write_video

require_video_extra()


def _recipe(encoder: str = "color", fps: float = 2.0) -> dict[str, Any]:
    return {"sources": [{"file": "f.h5", "extraction": Extractor(encoder=open_encoder(encoder), fps=fps).recipe}]}


def test_features_are_those_of_the_recipe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", noisy_frames(30))
    features, length_s = ModelVideos(_recipe(), "cpu").read(path)
    expected = Extractor(encoder=open_encoder("color"), fps=2.0).extract(path)
    np.testing.assert_array_equal(features, expected.features)
    assert length_s == expected.duration_s == 3.0


def test_a_cache_beside_the_video_is_taken_while_the_video_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", noisy_frames(30))
    model = ModelVideos(_recipe(), "cpu")
    model.is_cached = True
    first, _ = model.read(path)
    assert (tmp_path / f"a.mp4{CACHE}").is_file()
    extract, calls = Extractor.extract, []
    monkeypatch.setattr(Extractor, "extract", lambda self, file: calls.append(file) or extract(self, file))
    again, length_s = model.read(path)
    np.testing.assert_array_equal(first, again)
    assert length_s == 3.0 and not calls
    # another video, another recipe
    model.read(write_video(tmp_path / "a.mp4", noisy_frames(30, seed=1)))
    other = ModelVideos(_recipe(fps=1.0), "cpu")
    other.is_cached = True
    assert len(other.read(path)[0]) == 3 and len(calls) == 2


def test_a_file_that_is_no_cache_is_not_replaced(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", noisy_frames(10))
    (tmp_path / f"a.mp4{CACHE}").write_text("mine", encoding="utf-8")
    model = ModelVideos(_recipe(), "cpu")
    model.is_cached = True
    with pytest.raises(ValueError, match="is there and no cache of features"):
        model.read(path)
    assert (tmp_path / f"a.mp4{CACHE}").read_text(encoding="utf-8") == "mine"


def test_several_sources_are_joined_as_in_the_training(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", noisy_frames(30))
    recipe = {"sources": [*_recipe()["sources"], *_recipe()["sources"]], "joining": "side by side"}
    features, _ = ModelVideos(recipe, "cpu").read(path)
    alone, _ = ModelVideos(_recipe(), "cpu").read(path)
    half = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    np.testing.assert_allclose(features, np.concatenate([half, half], axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "does not say which encoder made the features of its training; make features"),
        ({"sources": [{"file": "i3d.hdf5"}]}, r"they were read from i3d\.hdf5; make features .* --features"),
        ({"sources": [{"extraction": {"encoder": "clip@0123456789ab"}}]}, "clip@0123456789ab, which was a folder"),
        ({"sources": [{"extraction": {"encoder": "no/such@1"}}]}, "encoder no/such@1: no folder of that name"),
    ],
)
def test_a_model_that_knows_no_encoder_says_what_to_do(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ModelVideos(recipe, "cpu").open()
    assert "\n" not in str(error.value)


def test_an_encoder_that_is_named_has_to_be_that_of_the_training(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    recipe = _recipe(str(folder), fps=1.0)
    path = write_video(tmp_path / "a.mp4", noisy_frames(20))
    # the folder may have another name
    moved = folder.rename(tmp_path / "moved")
    features, _ = ModelVideos(recipe, "cpu", [str(moved)]).read(path)
    assert features.shape == (2, 16)
    with pytest.raises(ValueError, match="encoder color: its .* that of the model's training"):
        ModelVideos(recipe, "cpu", ["color"]).open()
    with pytest.raises(ValueError, match="2 named, expected one for each of 1"):
        ModelVideos(recipe, "cpu", ["color", "color"]).open()
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ValueError, match="its encoder is moved@"):
        ModelVideos(recipe, "cpu", [str(moved)]).open()


_CLIP = {"encoder": "openai/clip@1", "fps": 1.0, "width": 16, "pooling": "projection", "sampling": "middle"}
_FOLDER = {**_CLIP, "encoder": "clip@0123456789ab"}


@pytest.mark.parametrize(
    ("actual", "trained", "differing"),
    [
        (_CLIP, {**_CLIP, "fps": 2.0, "sampling": "other"}, None),
        (_CLIP, {**_CLIP, "encoder": "openai/clip@2"}, None),
        (_CLIP, {**_CLIP, "encoder": "other/clip@1"}, "openai/clip@1, .* by other/clip@1; make them"),
        (_CLIP, {**_CLIP, "encoder": "color"}, "openai/clip@1, .* by color; make them"),
        ({**_FOLDER, "encoder": "moved@0123456789ab"}, _FOLDER, None),
        ({**_FOLDER, "encoder": "clip@ba9876543210"}, _FOLDER, "clip@ba9876543210, .* by clip@0123456789ab; make"),
        (_CLIP, _FOLDER, None),
        ({**_CLIP, "pooling": "mean"}, _FOLDER, r"openai/clip@1, .* by clip@.* \(pooling mean, not projection\)"),
        (None, _CLIP, None),
        (_CLIP, None, None),
    ],
)
def test_features_of_another_encoder_are_refused_as_far_as_files_tell(
    actual: dict[str, Any] | None, trained: dict[str, Any] | None, differing: str | None
) -> None:
    model = ModelVideos({"sources": [{"file": "f.h5", **({"extraction": trained} if trained else {})}]}, "cpu")
    if differing is None:
        model.require_same([actual], "new.h5")
        # joined in another way: the width tells
        model.require_same([actual, actual], "new.h5")
    else:
        with pytest.raises(ValueError, match=f"new.h5: its features were made by the encoder {differing}"):
            model.require_same([actual], "new.h5")


def test_damage_is_told(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", noisy_frames(200))
    path = spoiled(whole, tmp_path / "b.mp4", 0.5, 0.6)
    with pytest.warns(Note, match=r"b\.mp4: damaged"):
        ModelVideos(_recipe(), "cpu").read(path)
