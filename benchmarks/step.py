"""Seconds, memory and profile of a training step: python -m benchmarks.step --preset charades

Times whole steps (forward, losses, backward, clipping, Adam) on random input of the real data sets' sizes, after
warm-up, and prints median and 20 / 80 % quantiles, the process's peak memory and the share of each kind of operator.
Appends a JSON line per run to --out. Times of one machine mean little; compare two runs only side by side.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from pps_fast.cli import Device, PresetName, choose_device, set_threads
from pps_fast.config import PPSConfig, ReconstructorPlan
from pps_fast.config_tree import override
from pps_fast.data.store import rounded_columns
from pps_fast.info import PUBLISHED, cpu_name
from pps_fast.losses.objective import Objective
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.train.cuda_graph import CapturedStep
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import TrainStep
from pps_fast.types import Batch, FeatureSizes

MAX_NUM_WORDS = 20

# quantiles 5, 50, 95 % of the sentences' lengths, and the longest
_LENGTHS = {"charades": (4, 7, 11, 13), "charades_clip": (4, 7, 11, 13), "activitynet": (7, 13, 20, 20)}
SIZES = {name: (sizes, _LENGTHS[name]) for name, (sizes, _) in PUBLISHED.items()}
# what an operator is counted as
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "softmax and normalisation": ("_softmax", "_log_softmax", "native_layer_norm", "_softmax_backward_data"),
    "copies and layout": ("copy_", "cat", "clone", "index", "gather", "index_put_"),
    "dropout": ("native_dropout", "bernoulli_", "native_dropout_backward"),
}


@dataclass(frozen=True)
class Arguments:
    """What to time."""

    preset: PresetName = "charades"
    """config; its sizes are those of the data set the name begins with"""
    batch_size: int = 32
    """samples per step"""
    steps: int = 5
    """timed steps, after two warm-up steps"""
    device: Device = "auto"
    """where"""
    threads: int | None = None
    """CPU threads; torch's choice without one"""
    bf16: bool = False
    """autocast to bf16"""
    plan: ReconstructorPlan = "shared"
    """how the reconstructor's passes are computed"""
    capture: bool = False
    """replay the step as a CUDA graph; needs a GPU"""
    out: Path | None = None
    """append a JSON line here"""


def sizes_of(preset: str) -> tuple[FeatureSizes, tuple[int, ...]]:
    """Returns the sizes of the data set whose name the preset's begins with, the longest such name."""
    names = [name for name in SIZES if preset.startswith(name)]
    if not names:
        raise ValueError(f"preset = {preset!r}: no data set's sizes are known for it; expected {', '.join(SIZES)} ...")
    return SIZES[max(names, key=len)]


def random_batch(sizes: FeatureSizes, lengths: tuple[int, ...], batch_size: int, device: torch.device) -> Batch:
    """Returns a batch with the data set's sizes and a sentence-length distribution like its own."""
    rng = np.random.default_rng(0)
    num_words = np.interp(rng.random(batch_size), (0.05, 0.5, 0.95, 1.0), lengths).round().astype(np.int64)
    columns = int(rounded_columns(num_words, MAX_NUM_WORDS).max())
    is_word = np.arange(columns) < num_words[:, None]
    shape = (batch_size, columns)
    return Batch(
        frames=torch.from_numpy(rng.standard_normal((batch_size, sizes.num_segments, sizes.frame_dim), np.float32)),
        num_frames=torch.full((batch_size,), sizes.num_segments),
        words=torch.from_numpy(rng.standard_normal((*shape, sizes.word_dim), np.float32) * is_word[..., None]),
        word_ids=torch.from_numpy(rng.integers(1, sizes.vocab_size, shape) * is_word),
        num_words=torch.from_numpy(num_words),
        hide_prob=torch.from_numpy((is_word / num_words[:, None]).astype(np.float32)),
        word_noise=torch.from_numpy(rng.gumbel(size=shape).astype(np.float32)),
        dropout_key=torch.from_numpy(rng.integers(-(2**31), 2**31, batch_size, np.int32)),
        sample_index=torch.arange(batch_size),
        progress=torch.ones(batch_size),
    ).to(device)


def build_step(config: PPSConfig, sizes: FeatureSizes, device: torch.device) -> TrainStep:
    """Returns a training step of a freshly initialised model."""
    torch.manual_seed(0)
    model = PPS(config, sizes).to(device).train()
    optimizer = Adam(model.parameters(), lr=config.train.learning_rate, backend=config.backend)
    objective = Objective(config).to(device)
    return TrainStep(model, objective, optimizer, config.train.clip_norm, config.train.precision)


class OneBatch:
    """Stands in for a store that always hands out one batch, for steps that gather their own."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.device = batch, batch.frames.device

    def num_columns(self, samples: np.ndarray) -> np.ndarray:
        """The batch's word columns, for every sample."""
        return np.full(len(samples), self.batch.words.shape[1])

    def gather(self, index: torch.Tensor, num_columns: int) -> Batch:
        """The batch."""
        return self.batch


def runner(step: TrainStep, batch: Batch, is_captured: bool) -> Callable[[], Any]:
    """Returns a function that trains on the batch once more."""
    if not is_captured:
        return lambda: step(batch)
    run, samples = CapturedStep(step, OneBatch(batch), len(batch.frames)), np.arange(len(batch.frames))
    return lambda: run(samples)


def timed(run: Callable[[], Any], is_cuda: bool, steps: int) -> list[float]:
    """Returns the seconds of each of `steps` calls after two others."""
    seconds = []
    for index in range(steps + 2):
        begin = time.perf_counter()
        run()
        if is_cuda:
            torch.cuda.synchronize()
        if index >= 2:
            seconds.append(time.perf_counter() - begin)
    return seconds


def profiled(step: TrainStep, batch: Batch) -> dict[str, float]:
    """Returns the share of one step's operator time by kind, and the number of operators called."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(batch)
    total: defaultdict[str, float] = defaultdict(float)
    calls = 0
    for event in profile.key_averages():
        if not event.key.startswith("aten::"):
            continue
        name = event.key.removeprefix("aten::")
        kind = next((kind for kind, names in KINDS.items() if name in names), "elementwise and other")
        total[kind] += event.self_cpu_time_total
        calls += event.count
    everything = sum(total.values())
    shares = {kind: round(value / everything, 3) for kind, value in sorted(total.items(), key=lambda item: -item[1])}
    return {**shares, "operators called, views included": calls}


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.is_file():
        # of this program; the other figure keeps the peak of the process that started it
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="utf-8"), re.MULTILINE)
        return int(found.group(1)) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def commit() -> str:
    """Returns the checkout's commit in short, "-dirty" after it where tracked files differ."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return found.stdout.strip() or "unknown"


def measure(arguments: Arguments) -> dict[str, Any]:
    """Times, profiles and describes a step."""
    device = choose_device(arguments.device)
    set_threads(arguments.threads)
    precision = "bf16" if arguments.bf16 else "fp32"
    changes = {"train.precision": precision, "reconstructor.plan": arguments.plan}
    config = override(PRESETS[arguments.preset], changes)
    sizes, lengths = sizes_of(arguments.preset)
    step, batch = build_step(config, sizes, device), random_batch(sizes, lengths, arguments.batch_size, device)
    is_captured = arguments.capture and device.type == "cuda"
    seconds = sorted(timed(runner(step, batch, is_captured), device.type == "cuda", arguments.steps))
    quantiles = statistics.quantiles(seconds, n=5) if len(seconds) > 1 else seconds * 4
    return {
        "what": "training step",
        "preset": arguments.preset,
        "batch_size": arguments.batch_size,
        "precision": config.train.precision,
        "plan": arguments.plan,
        "captured": is_captured,
        "seconds_median": round(statistics.median(seconds), 4),
        "seconds_q20": round(quantiles[0], 4),
        "seconds_q80": round(quantiles[-1], 4),
        "steps": arguments.steps,
        "peak_memory_gib": round(_peak_memory_gib(device), 2),
        "parameters": sum(p.numel() for p in step.model.parameters()),
        "profile": profiled(step, batch),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def main(arguments: Arguments) -> None:
    """Prints the measurement and appends it to --out."""
    row = measure(arguments)
    for name, value in row.items():
        print(f"{name:16s} {value}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
