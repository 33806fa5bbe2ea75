"""Encoders of frames for tests: one that tells the numbers of gray frames, and folders of small random ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.features.encoders import FrameEncoder
from tests.support.videos import number_of


def number_encoder(frames: int = 1, span_s: float = 0.0) -> FrameEncoder:
    """Returns an encoder whose row has the numbers of its frames (`videos.gray_frames`), plus one."""

    def run(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        return np.array([[float(frame[0]) for frame in row] for row in rows], dtype=np.float32)

    return FrameEncoder(
        name="numbers@1",
        width=frames,
        frames=frames,
        span_s=span_s,
        prepare=lambda frame: np.array([number_of(frame) + 1.0]),
        run=run,
    )


def clip_folder(folder: Path) -> Path:
    """Writes a CLIP of random weights with images of 32 pixels and vectors of width 16; skips without the library."""
    transformers = pytest.importorskip("transformers", reason="needs the video extra")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**size).save_pretrained(folder)
    return folder


def videomae_folder(folder: Path) -> Path:
    """Writes a VideoMAE of random weights with clips of 4 frames of 32 pixels; skips without the library."""
    transformers = pytest.importorskip("transformers", reason="needs the video extra")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.VideoMAEConfig(**small, image_size=32, patch_size=8, num_frames=4, tubelet_size=2)
    transformers.VideoMAEModel(config).save_pretrained(folder)
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    VideoMAEImageProcessorPil(**size).save_pretrained(folder)
    return folder
