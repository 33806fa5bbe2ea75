"""Small complete inputs of `python -m pps_fast.prepare` in several forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pps_fast.data.prepared import PreparedData, read_prepared
from pps_fast.prepare.build import prepare
from pps_fast.prepare.options import PrepareOptions

FRAME_DIM = 4
DURATIONS = {"A": 10.0, "B": 20.0, "C": 30.5, "D": 12.0, "E": 9.0, "F": 31.0}
FRAMES = {"A": 10, "B": 21, "C": 3, "D": 12, "E": 1, "F": 40}
TRAIN = [
    ["A", 10.0, [0.0, 4.0], "Person opens the door."],
    ["A", 10.0, [3.5, 10.0], "a man's dog sits, then runs"],
    ["B", 20.0, [5, 12], "person closes the zzzz door."],
    ["C", 30.5, [1.0, 2.0], "the dog runs."],
    ["D", 12.0, [1.0, 11.0], "person opens the door then closes the door."],
]
TEST = [["E", 9.0, [0.5, 3.0], "person runs."], ["F", 31.0, [10.0, 31.0], " a dog sits. "]]
WORDS = ["door", "person", "opens", "closes", "the", "dog", "runs", "sits", "then", "a", ".", ",", "man", "'s"]


def frames_of(video_id: str) -> np.ndarray:
    """[n, 4] float32 features of a video."""
    rng = np.random.default_rng(ord(video_id))
    return rng.standard_normal((FRAMES[video_id], FRAME_DIM)).astype(np.float32)


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_features(path: Path, **changes: np.ndarray) -> Path:
    """Writes flat HDF5 features, some videos replaced."""
    with h5py.File(path, "w") as file:
        for video_id in FRAMES:
            file[video_id] = changes.get(video_id, frames_of(video_id))
    return path


def make_inputs(folder: Path) -> dict[str, Any]:
    """Writes good inputs into `folder` and returns the options that prepare them."""
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 5)).astype(np.float32)
    np.savez(folder / "words.npz", words=np.array(WORDS), vectors=vectors)
    return {
        "out": folder / "out.h5",
        "protocol": "as_is",
        "train": write_json(folder / "train.json", TRAIN),
        "test": write_json(folder / "test.json", TEST),
        "features": (write_features(folder / "features.hdf5"),),
        "vocabulary": folder / "words.npz",
        "num_segments": 8,
        "max_num_words": 6,
    }


def to_argv(options: dict[str, Any]) -> list[str]:
    """Returns options as a command line; None leaves one out, True is a flag."""
    argv: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        values = value if isinstance(value, tuple) else (value,)
        argv += [flag] if value is True else [flag, *map(str, values)]
    return argv


def build(options: PrepareOptions) -> PreparedData:
    """Prepares, and reads what was written."""
    prepare(options)
    return read_prepared(options.out)
