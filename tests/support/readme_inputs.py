"""The files of its own that a reader of the README has: a tiny Charades-STA under the names the README uses."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from tests.support.videos import noisy_frames, write_video

_TRAIN = {"A": 30.0, "B": 25.0, "C": 31.5, "D": 20.0, "E": 28.0, "F": 33.0}
_TEST = {"3MSZA": 30.0, "H": 22.0, "I": 26.0, "J": 34.0, "K": 29.0, "L": 24.0}
_SENTENCES = ("person opens the door.", "a person closes the book.", "person sits down.")
_WIDTH, _WORD_WIDTH = 6, 5


def write_inputs(folder: Path) -> None:
    """Writes annotations, durations, features, word vectors and people's answers into a folder."""
    rng = np.random.default_rng(0)
    for split, durations in (("train", _TRAIN), ("test", _TEST)):
        rows = [
            f"{video} {1.0 + number} {6.0 + 4 * number}##{sentence}"
            for video in durations
            for number, sentence in enumerate(_SENTENCES)
        ]
        (folder / f"charades_sta_{split}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
        lengths = "\n".join(f"{video},{length}" for video, length in durations.items())
        (folder / f"Charades_v1_{split}.csv").write_text(f"id,length\n{lengths}\n", encoding="utf-8")
    for name in ("i3d_features.hdf5", "clip.hdf5"):
        with h5py.File(folder / name, "w") as file:
            for video in (*_TRAIN, *_TEST):
                file[video] = rng.standard_normal((20, _WIDTH)).astype(np.float32)
    words = Counter(word.strip(".") for sentence in _SENTENCES for word in sentence.split())
    vectors = [rng.standard_normal(_WORD_WIDTH).astype(np.float32) for _ in words]
    content = {"w2id": {word: row for row, word in enumerate(words)}, "id2vec": vectors, "counter": words}
    (folder / "glove.pkl").write_bytes(pickle.dumps(content))
    for seed, name in enumerate(("kitchen_1", "hall_2")):
        (folder / "videos").mkdir(exist_ok=True)
        write_video(folder / "videos" / f"{name}.mp4", noisy_frames(30, seed))
    # where the videos themselves would lie
    (folder / "Charades_v1").mkdir()
    (folder / "test_00.csv").write_text("", encoding="utf-8")
