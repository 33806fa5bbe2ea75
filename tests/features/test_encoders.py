"""Encoders of frames: those of the field as their library computes them, whole or refused, and the toy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.features.encoders import full_name, open_encoder
from tests.support.documents import ROOT
from tests.support.frame_encoders import clip_folder, videomae_folder
from tests.support.videos import require_video_extra

require_video_extra()


def _frame(seed: int, size: tuple[int, int] = (48, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def test_clip_is_its_projected_image_vector(tmp_path: Path) -> None:
    import transformers
    from PIL import Image

    folder = clip_folder(tmp_path / "clip")
    encoder = open_encoder(str(folder))
    frames = [_frame(0), _frame(1)]
    got = encoder.run([[encoder.prepare(frame)] for frame in frames])
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    pixels = processor(images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert encoder.name.startswith("clip@") and (encoder.width, encoder.frames) == (16, 1)
    assert encoder.record["image_size"] == [32, 32] and len(encoder.record["image_mean"]) == 3


def test_a_clip_encoder_takes_as_many_frames_as_it_was_made_for(tmp_path: Path) -> None:
    import transformers

    folder = videomae_folder(tmp_path / "videomae")
    encoder = open_encoder(str(folder))
    assert (encoder.width, encoder.frames) == (16, 4) and encoder.span_s == pytest.approx(4 * 4 / 30)
    prepared = [encoder.prepare(_frame(seed)) for seed in range(4)]
    model = transformers.VideoMAEModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = model(pixel_values=torch.from_numpy(np.stack(prepared)[None]))
    np.testing.assert_allclose(encoder.run([prepared]), output.last_hidden_state.mean(dim=1).numpy(), atol=1e-5)


def test_an_encoder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = clip_folder(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    # those of the text are not needed
    images = {name: value for name, value in weights.items() if "text" not in name}
    save_file(images, folder / "model.safetensors")
    open_encoder(str(folder))
    lacking = {name: value for name, value in images.items() if "visual_projection" not in name}
    save_file(lacking, folder / "model.safetensors")
    with pytest.raises(ValueError, match="encoder .*clip: cannot be loaded .*its weights lack visual_projection"):
        open_encoder(str(folder))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="not a whole encoder, it lacks its image processor"):
        open_encoder(str(folder))


def test_weights_that_are_no_safetensors_are_read_as_plain_tensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = clip_folder(tmp_path / "clip")
    frame = _frame(0)
    before = open_encoder(str(folder))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    after = open_encoder(str(folder))
    rows = [encoder.run([[encoder.prepare(frame)]]) for encoder in (before, after)]
    np.testing.assert_allclose(*rows, rtol=1e-4)


def test_the_toy_tells_colors_apart_and_not_their_brightness_alone() -> None:
    encoder = open_encoder("color")
    red, blue = (np.full((40, 60, 3), color, dtype=np.uint8) for color in ([250, 0, 0], [0, 0, 250]))
    rows = encoder.run([[encoder.prepare(frame)] for frame in (red, blue, red)])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert rows.shape == (3, encoder.width) and np.abs(rows[0] - rows[1]).max() >= 1
    # shares of colors sum to 1
    np.testing.assert_allclose((rows[:, :64] ** 2).sum(axis=1), 1, atol=1e-6)
    assert "toy" in encoder.record["pooling"]


@pytest.mark.parametrize(
    ("named", "full"),
    [
        ("clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
        ("siglip-base-patch16-224@main", "google/siglip-base-patch16-224@main"),
        ("videomae-base", "MCG-NJU/videomae-base"),
        ("laion/CLIP-ViT-B-32", "laion/CLIP-ViT-B-32"),
        ("something", "something"),
    ],
)
def test_short_names_have_their_owner(named: str, full: str) -> None:
    assert full_name(named) == full


def test_an_encoder_is_looked_for_without_loading_torch() -> None:
    code = "import sys, pps_fast.features.encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = clip_folder(tmp_path / "clip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'pps-fast\[video\]'"):
        open_encoder(str(folder))
