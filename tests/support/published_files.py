"""Files as the published code writes them, from golden files."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pps_fast.published.weights import export_released
from tests.support.golden_model import Golden, model_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def stored_settings(golden: Golden, dataset: str) -> dict[str, Any]:
    """Returns the settings of a golden file as a checkpoint of the published code carries them."""
    model, num_segments = golden.meta["model"], golden["in/frames_feat"].shape[1]
    if model["name"] == "PPS":
        data = {"name": dataset, "max_num_segments": num_segments}
    else:
        data = {"dataset": dataset, "max_num_frames": num_segments}
        model = {"name": model["name"], "config": {name: v for name, v in model.items() if name != "name"}}
    return {"dataset": data, "model": model, "loss": golden.meta["loss"]}


def write_published(path: Path, golden: Golden, dataset: str = "CharadesSTA") -> Path:
    """Writes a golden file's weights, through our exporter, and settings as the published code saves them."""
    weights = export_released(model_of(golden, torch.float32))
    settings = stored_settings(golden, dataset)
    torch.save({"num_updates": 11, "config": settings, "model_parameters": weights}, path)
    return path


def write_vocabulary(path: Path, num_words: int, width: int) -> Path:
    """Writes a vocabulary as the published glove.pkl is, its first words the most frequent."""
    words = [f"word{number}" for number in range(num_words)]
    vectors = np.random.default_rng(0).standard_normal((num_words + 1, width)).astype(np.float32)
    content = {
        "w2id": {"<PAD>": 0, **{word: number + 1 for number, word in enumerate(words)}},
        "id2vec": [np.zeros(width, dtype=np.float32), *vectors[1:]],
        "counter": Counter({word: 2 * num_words - number for number, word in enumerate(words)}),
    }
    path.write_bytes(pickle.dumps(content))
    return path
