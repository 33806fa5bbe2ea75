"""What fitting an alignment takes: python -m benchmarks.alignment_fit --out benchmarks/results

Fits the default alignment to made pairs, each number of pairs in a process of its own, and writes seconds and peak
memory to alignment_fit_<hardware>_<yyyymmdd>.jsonl. The features of a video are made when they are read, as rows of one
small table, so that any number of videos needs no memory and no disk; making them is timed and taken off. Data sizes
are those of Charades-STA with CLIP ViT-B/32 (S = 32, F = 512), unless options say others.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.rows import ROOT, about_machine, append, short, table
from pps_fast.alignment.fit import fit_alignment
from pps_fast.config import AlignmentConfig
from pps_fast.devices import set_threads
from pps_fast.types import FeatureSizes

# words of a sentence, and classes they are drawn from
_NUM_WORDS, _NUM_CLASSES = 8, 1000


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    pairs: tuple[int, ...] = (3_000, 37_417, 1_000_000)
    """numbers of training pairs"""
    pairs_per_video: float = 3.74
    """sentences of a video, on average (ActivityNet Captions)"""
    num_segments: int = 32
    """S"""
    frame_dim: int = 512
    """F"""
    threads: int = 1
    """CPU threads"""
    out: Path | None = None
    """directory of the result file; without one the table is only printed"""


class RandomFeatures:
    """Features [N, S, F] float16 that are made when they are read; `seconds` is what that has taken."""

    def __init__(self, num_videos: int, num_segments: int, frame_dim: int) -> None:
        self.shape = (num_videos, num_segments, frame_dim)
        self.seconds = 0.0
        self._rows = np.random.default_rng(0).standard_normal((4099, frame_dim)).astype(np.float16)

    def __getitem__(self, videos: np.ndarray) -> np.ndarray:
        begin = time.process_time()
        rows = (videos[:, None] * self.shape[1] + np.arange(self.shape[1])) % len(self._rows)
        features = self._rows[rows]
        self.seconds += time.process_time() - begin
        return features


class RandomPairs:
    """What a fit reads of a data set, with made features."""

    sentence_vectors = None

    def __init__(self, count: int, options: Arguments) -> None:
        rng = np.random.default_rng(1)
        num_videos = max(round(count / options.pairs_per_video), 1)
        self.features = RandomFeatures(num_videos, options.num_segments, options.frame_dim)
        self.sample_video = np.sort(rng.integers(num_videos, size=count))
        self.words = [str(word) for word in range(_NUM_CLASSES)]
        self.word_ids = rng.integers(1, _NUM_CLASSES, size=(count, _NUM_WORDS))
        self.word_vectors = rng.standard_normal((_NUM_CLASSES, 300)).astype(np.float32)
        self.sizes = FeatureSizes(
            frame_dim=options.frame_dim, word_dim=300, vocab_size=_NUM_CLASSES, num_segments=options.num_segments
        )


def measure(count: int, options: Arguments) -> dict[str, Any]:
    """Fits to `count` pairs in this process and returns seconds and memory."""
    set_threads(options.threads)
    data: Any = RandomPairs(count, options)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, begin = time.perf_counter(), time.process_time()
    fit_alignment(data, np.arange(count), AlignmentConfig())
    cpu, wall = time.process_time() - begin, time.perf_counter() - wall
    return {
        "pairs": count,
        "videos": data.features.shape[0],
        "cpu_s": short(cpu - data.features.seconds),
        "making_features_cpu_s": short(data.features.seconds),
        "wall_s": short(wall),
        # KiB on Linux
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "before_mib": round(base / 1024),
    }


def main(argv: list[str] | None = None) -> int:
    """Measures each number of pairs in its own process; returns the exit status."""
    options = tyro.cli(Arguments, description=__doc__, args=argv)
    about, device = {"options": asdict(options) | {"out": None}}, torch.device("cpu")
    set_threads(options.threads)
    rows = []
    for count in options.pairs:
        code = f"from benchmarks.alignment_fit import *; options = Arguments(**json.loads({_plain(options)!r}))"
        command = [sys.executable, "-c", f"{code}; print(json.dumps(measure({count}, options)))"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        rows.append({**json.loads(done.stdout), **about, **about_machine(device)})
    columns = ("pairs", "videos", "cpu_s", "wall_s", "before_mib", "peak_mib")
    print("\n".join(table(columns, [[row[name] for name in columns] for row in rows])))
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d")
    append(None if options.out is None else options.out / f"alignment_fit_cpu_{stamp}.jsonl", rows)
    return 0


def _plain(options: Arguments) -> str:
    """Returns the options as JSON, without those that only the first process needs."""
    return json.dumps({name: value for name, value in asdict(options).items() if name not in ("out", "pairs")})


if __name__ == "__main__":
    sys.exit(main())
