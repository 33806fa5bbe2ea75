"""Measures memory and time of data larger than memory: `prepare`, and training with features in memory or in the file.

    python -m benchmarks.residence --gigabytes 4 --folder /scratch --out residence.json

Features of random numbers are prepared to two packed files, one with eight times as many videos as the other. Each
peak is that of a process of its own (VmHWM). Times are of training steps with features in memory and in the file, in
one process and alternating, as medians and as the median of the ratios of the pairs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pps_fast import PRESETS, override
from pps_fast.config import PPSConfig
from pps_fast.data.prepared import read_prepared
from pps_fast.data.sampler import epoch_batches
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.devices import keep_freed_memory
from pps_fast.files import write_json
from pps_fast.model import PPS
from pps_fast.prepare.__main__ import main as prepare
from pps_fast.runs.environment import environment
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.cuda_graph import EagerStep

GROWTH = 8
"""times as many videos as in the smaller file"""
SEGMENTS = 200


def peak_mib() -> int:
    """Most memory that this process has had at a time, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a function that runs in a new process, a child of one that has imported all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.residence", "torch._dynamo"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def write_sources(folder: Path, num_videos: int, width: int) -> None:
    """Writes features of random numbers, one sentence a video, and vectors of its words."""
    random = np.random.default_rng(0)
    block = random.standard_normal((SEGMENTS + 30, width)).astype(np.float16)
    words = [f"word{index}" for index in range(50)]
    folder.mkdir(parents=True)
    with h5py.File(folder / "features.h5", "w") as file, open(folder / "pairs.jsonl", "w", encoding="utf-8") as pairs:
        for index in range(num_videos):
            file[f"v{index}"] = np.roll(block, 7 * index)[: SEGMENTS + index % 30]
            sentence = " ".join(random.choice(words, 4 + index % 5).tolist())
            pair = {"video": f"v{index}", "sentence": sentence, "duration": 30.0, "start": 1.0, "end": 9.0}
            pairs.write(json.dumps(pair) + "\n")
    vectors = random.standard_normal((len(words), 50))
    lines = [" ".join([word, *(f"{value:.3f}" for value in row)]) for word, row in zip(words, vectors, strict=True)]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_prepare(folder: Path) -> int:
    """Prepares the sources of a folder to data.h5; returns the peak memory in MiB."""
    files = ["--train", folder / "pairs.jsonl", "--features", folder / "features.h5"]
    files += ["--vocabulary", folder / "vectors.txt", "--out", folder / "data.h5"]
    options = ["--protocol", "full", "--num-segments", SEGMENTS]
    with redirect_stdout(StringIO()) as said:
        status = prepare([str(word) for word in (*files, *options)])
    if status:
        raise SystemExit(said.getvalue())
    return peak_mib()


def step_of(config: PPSConfig, path: Path, residence: str) -> tuple[Callable[[int], float], int]:
    """Returns a function that trains on the batch of a number and tells its seconds, and the number of batches."""
    store = Store(read_prepared(path, residence), "cpu", residence)
    batches = epoch_batches(select_samples(store.data, config.data).train, config.train.batch_size, 0, 0)
    torch.manual_seed(0)
    model = PPS(config, store.sizes).train()
    run = EagerStep(TRAIN_STEPS[config.train.update](model, config), store)
    store.begin_pass(0, 0)

    def step(number: int) -> float:
        began = time.perf_counter()
        float(run(batches[number % len(batches)]).loss.total)
        store.read_ahead([batches[(number + ahead) % len(batches)] for ahead in (1, 2)])
        return time.perf_counter() - began

    return step, len(batches)


def train_some(config: PPSConfig, path: Path, residence: str, steps: int) -> int:
    """Trains for some steps; returns the peak memory in MiB."""
    torch.set_num_threads(1)
    keep_freed_memory()
    step, _ = step_of(config, path, residence)
    for number in range(steps):
        step(number)
    return peak_mib()


def time_pairs(config: PPSConfig, path: Path, steps: int) -> dict[str, float]:
    """Returns median seconds of steps with features in memory and in the file, and the median ratio of the pairs."""
    torch.set_num_threads(1)
    keep_freed_memory()
    runs = {name: step_of(config, path, name)[0] for name in ("host", "disk")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(steps + 1):
        for name in sorted(runs, reverse=bool(number % 2)):
            seconds[name].append(runs[name](number))
    # the first of each has warmed up
    host, disk = seconds["host"][1:], seconds["disk"][1:]
    ratio = statistics.median(b / a for a, b in zip(host, disk, strict=True))
    return {"host_s": statistics.median(host), "disk_s": statistics.median(disk), "disk_to_host": ratio}


def measure(folder: Path, gigabytes: float, width: int, steps: int, config: PPSConfig) -> dict[str, Any]:
    """Prepares both files in a folder and measures all that the module says."""
    count = max(round(gigabytes * 2**30 / (2 * SEGMENTS * width)), GROWTH * config.train.batch_size)
    record: dict[str, Any] = {"segments": SEGMENTS, "width": width, "batch_size": config.train.batch_size}
    for name, videos in (("small", count // GROWTH), ("large", count)):
        write_sources(folder / name, videos, width)
        prepared = alone(run_prepare, folder / name)
        (folder / name / "features.h5").unlink()
        path = folder / name / "data.h5"
        peaks = {where: alone(train_some, config, path, where, steps) for where in ("host", "disk")}
        size = path.stat().st_size // 2**20
        record[name] = {"videos": videos, "file_mib": size, "prepare_peak_mib": prepared}
        record[name]["train_peak_mib"] = peaks
    record["step"] = time_pairs(config, folder / "large" / "data.h5", steps)
    return record


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of features of the larger file")
    parser.add_argument("--width", type=int, default=1024, help="of a feature vector")
    parser.add_argument("--hidden-dim", type=int, default=64, help="of the model")
    parser.add_argument("--steps", type=int, default=20, help="training steps of each process")
    parser.add_argument("--batch-size", type=int, default=32, help="samples of a step")
    parser.add_argument("--folder", type=Path, required=True, help="for the files, two and a half times as large")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with the figures")
    options = parser.parse_args(argv)
    changes = {"encoder.hidden_dim": options.hidden_dim, "train.batch_size": options.batch_size}
    config = override(PRESETS["charades"], changes)
    record = measure(options.folder, options.gigabytes, options.width, options.steps, config)
    write_json(options.out, {"format": "pps_fast.residence", "environment": environment(), **record})
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
