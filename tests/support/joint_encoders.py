"""Folders of small joint encoders of images and sentences, with random weights and eleven words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "person", "opens", "the", "door", "dog"]
WIDTH = 16


def joint_folder(folder: Path, kind: str = "clip") -> Path:
    """Writes a CLIP or SigLIP with images of 32 pixels and vectors of width 16; skips without the library."""
    transformers = pytest.importorskip("transformers", reason="needs the video extra")
    torch.manual_seed(0)
    small = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 16}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**small, "image_size": 32, "patch_size": 8}
    if kind == "clip":
        config = transformers.CLIPConfig(
            text_config={**text, "projection_dim": WIDTH}, vision_config=vision, projection_dim=WIDTH
        )
        transformers.CLIPModel(config).save_pretrained(folder)
    else:
        config = transformers.SiglipConfig(text_config={**text, "projection_size": WIDTH}, vision_config=vision)
        transformers.SiglipModel(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**size).save_pretrained(folder)
    return folder
