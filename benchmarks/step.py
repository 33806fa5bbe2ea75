"""Seconds, memory and profile of a training step: python -m benchmarks.step --preset charades

Times whole steps (forward, losses, backward, clipping, Adam) on random input of the real data sets' sizes, after
warm-up, and prints median and 20 / 80 % quantiles, the process's peak memory and the share of each kind of operator.
Appends a JSON line per run to --out. Times of one machine mean little; compare two runs only side by side.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.memory import process_peak_gib
from benchmarks.rows import Row, about_machine, append, table
from benchmarks.timing import timed_steps
from pps_fast.cli import PresetName
from pps_fast.config import PPSConfig, ReconstructorSchedule
from pps_fast.config_tree import override
from pps_fast.data.store import rounded_columns, rounded_words
from pps_fast.devices import Device, choose_device, keep_freed_memory, set_threads
from pps_fast.info import published_sizes
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.predict import predict
from pps_fast.presets import PRESETS
from pps_fast.train.cuda_graph import CapturedStep
from pps_fast.train.optimizer import Adam
from pps_fast.train.step import TrainStep
from pps_fast.types import Batch, FeatureSizes

MAX_NUM_WORDS = 20
# of the paper's training
BATCH_SIZE = 32
# where sentences of the lengths below lie in their order
LENGTH_QUANTILES = (0.05, 0.5, 0.95, 1.0)
# quantiles 5, 50, 95 % of the sentences' lengths, and the longest
_LENGTHS = {"charades": (4, 7, 11, 13), "charades_clip": (4, 7, 11, 13), "activitynet": (7, 13, 20, 20)}
SIZES = {name: (sizes, _LENGTHS[name]) for name, (sizes, _) in published_sizes().items()}
# what an operator is counted as
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "softmax and normalization": ("_softmax", "_log_softmax", "native_layer_norm", "_softmax_backward_data"),
    "copies and layout": ("copy_", "cat", "clone", "index", "gather", "index_put_"),
    "dropout": ("native_dropout", "bernoulli_", "native_dropout_backward"),
}


@dataclass(frozen=True)
class Arguments:
    """What to time."""

    preset: PresetName = "charades"
    """config; its sizes are those of the data set the name begins with"""
    batch_size: int = BATCH_SIZE
    """samples per step"""
    steps: int = 5
    """timed steps, after three warm-up steps"""
    device: Device = "auto"
    """where"""
    threads: int | None = None
    """CPU threads; torch's choice without one"""
    bf16: bool = False
    """autocast to bf16"""
    plan: ReconstructorSchedule = "shared"
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
    num_words = np.interp(rng.random(batch_size), LENGTH_QUANTILES, lengths).round().astype(np.int64)
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
        total_words=min(rounded_words(num_words), batch_size * columns),
    ).to(device)


def build_step(config: PPSConfig, sizes: FeatureSizes, device: torch.device) -> TrainStep:
    """Returns a training step of a freshly initialized model."""
    torch.manual_seed(0)
    return step_of(config, PPS(config, sizes).to(device).train(), Objective(config).to(device))


def step_of(config: PPSConfig, model: PPS, objective: Objective) -> TrainStep:
    """Returns the training step of a model."""
    optimizer = Adam(model.parameters(), lr=config.train.learning_rate, backend=config.backend)
    return TrainStep(model, objective, optimizer, config.train.clip_norm, config.train.precision)


def evaluation_of(model: PPS, batch: Batch, is_bf16: bool) -> Callable[[], Any]:
    """Returns the evaluation step of a model: forward without negatives, ranking and votes."""
    model.eval().requires_grad_(False)
    # batches of an evaluation have hardly any padding, and compute it
    batch = replace(batch, total_words=None)

    def evaluate() -> Any:
        autocast = torch.autocast(batch.frames.device.type, dtype=torch.bfloat16, enabled=is_bf16)
        # not inference mode, in which the counter of operations would not see the products
        with torch.no_grad(), autocast:
            return predict(model(batch, with_negatives=False), model.config.inference.selector)

    return evaluate


class OneBatch:
    """Stands in for a store that always hands out one batch, for steps that gather their own."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.device = batch, batch.frames.device

    def num_columns(self, samples: np.ndarray) -> np.ndarray:
        """The batch's word columns, for every sample."""
        return np.full(len(samples), self.batch.words.shape[1])

    def stage(self, samples: np.ndarray) -> None:
        """Nothing: the batch is there."""

    def total_words(self, samples: np.ndarray) -> int:
        """The batch's words."""
        return self.batch.total_words or 0

    def gather(self, index: torch.Tensor, num_columns: int, total_words: int | None = None) -> Batch:
        """The batch."""
        return self.batch

    def memory(self) -> list[torch.Tensor]:
        """Its tensors."""
        return list(self.batch.tensors().values())


def runner(step: TrainStep, batch: Batch, is_captured: bool) -> Callable[[], Any]:
    """Returns a function that trains on the batch once more."""
    if not is_captured:
        return lambda: step(batch)
    run, samples = CapturedStep(step, OneBatch(batch), len(batch.frames)), np.arange(len(batch.frames))
    return lambda: run(samples)


def operator_events(run: Callable[[], Any]) -> list[Any]:
    """Returns torch's averages of one call by operator of torch's own, on the CPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return [event for event in profile.key_averages() if event.key.startswith("aten::")]


def profiled(run: Callable[[], Any]) -> dict[str, float]:
    """Returns the share of one step's operator time by kind, and the number of operators called."""
    total: defaultdict[str, float] = defaultdict(float)
    events = operator_events(run)
    for event in events:
        name = event.key.removeprefix("aten::")
        kind = next((kind for kind, names in KINDS.items() if name in names), "elementwise and other")
        total[kind] += event.self_cpu_time_total
    everything = sum(total.values())
    shares = {kind: round(value / everything, 3) for kind, value in sorted(total.items(), key=lambda item: -item[1])}
    return {**shares, "operators called, views included": sum(event.count for event in events)}


def measure(arguments: Arguments) -> Row:
    """Times, profiles and describes a step."""
    device = choose_device(arguments.device)
    set_threads(arguments.threads)
    keep_freed_memory()
    precision = "bf16" if arguments.bf16 else "fp32"
    changes = {"train.precision": precision, "reconstructor.schedule": arguments.plan}
    config = override(PRESETS[arguments.preset], changes)
    sizes, lengths = sizes_of(arguments.preset)
    step, batch = build_step(config, sizes, device), random_batch(sizes, lengths, arguments.batch_size, device)
    is_captured = arguments.capture and device.type == "cuda"
    return {
        "what": "training step",
        "preset": arguments.preset,
        "batch_size": arguments.batch_size,
        "precision": precision,
        "plan": arguments.plan,
        "captured": is_captured,
        **timed_steps(runner(step, batch, is_captured), device, repetitions=arguments.steps),
        "peak_memory_gib": process_peak_gib(device),
        "parameters": sum(p.numel() for p in step.model.parameters()),
        "profile": profiled(lambda: step(batch)),
        **about_machine(device),
    }


def report(row: Row) -> str:
    """Returns a measurement as tables."""
    names = ("seconds_median", "seconds_q20", "seconds_q80", "peak_memory_gib")
    header = ("seconds per step, median", "20 % quantile", "80 % quantile", "peak memory, GiB")
    about = ("what", "preset", "batch_size", "precision", "plan", "hardware", "threads", "torch", "commit")
    shares = {kind: f"{100 * share:.1f}" for kind, share in row["profile"].items() if "called" not in kind}
    lines = [", ".join(f"{name} {row[name]}" for name in about), "", *table(header, [[row[name] for name in names]])]
    lines += ["", *table(("kind of operator", "share of the operators' CPU time, %"), list(shares.items()))]
    return "\n".join([*lines, "", "Fewer seconds and less memory are better."])


def main(arguments: Arguments) -> None:
    """Prints the measurement and appends it to --out."""
    row = measure(arguments)
    print(report(row))
    append(arguments.out, [row])


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
