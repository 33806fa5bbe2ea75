"""A small prepared data set, and the writing of files as older versions wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from pps_fast.data.prepared import FORMAT
from pps_fast.data.record import PreparedData

_VERSION_1 = (
    "duration_s features word_vectors sample_video word_ids num_words hide_prob moment_s fold "
    "video_ids words sentences split"
)


def small() -> PreparedData:
    return PreparedData(
        video_ids=["a", "b"],
        duration_s=np.array([10.0, 4.0]),
        features=np.arange(24, dtype=np.float16).reshape(2, 4, 3),
        words=["<pad>", "door", "café"],
        word_vectors=np.array([[0, 0], [1, 2], [3, 4]], dtype=np.float32),
        sample_video=np.array([0, 1, 1]),
        sentences=["door", "café door", "door"],
        word_ids=np.array([[1, 0], [2, 1], [1, 0]]),
        num_words=np.array([1, 2, 1]),
        hide_prob=np.array([[1, 0], [0.25, 0.75], [1, 0]], dtype=np.float32),
        window_s=np.array([[1.0, 5.0], [1.0, 4.5], [0.0, 2.0]]),
        window_sample=np.array([0, 1, 2]),
        split=np.array(["train", "test", "validation"]),
        fold=np.array([0, -1, 1]),
        provenance={"name": "small", "protocol": "as_is"},
    )


def write_version_1(path: Path, data: PreparedData) -> Path:
    """Writes a data set whose samples have one window each as version 1 of the packed file."""
    with h5py.File(path, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = 1
        for name in [*_VERSION_1.split(), *(["kind"] if data.kind is not None else [])]:
            value = getattr(data, name)
            if isinstance(value, np.ndarray) and value.dtype.kind != "U":
                file.create_dataset(name, data=value)
            else:
                file.create_dataset(name, data=[str(text) for text in value], dtype=h5py.string_dtype())
        file.create_dataset("provenance", data=json.dumps(data.provenance), dtype=h5py.string_dtype())
    return path
