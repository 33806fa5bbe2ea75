"""Evaluations of 3,158 pairs of Charades' size, captured beside eager: the stage `evaluation` of the GPU report.

Both answer the same pairs by the same weights; captured answers must be equal to the eager ones to the bit, or they are
not timed. Batches of several sizes, as each is filled up for every number of word columns: larger ones are filled with
more that is thrown away, smaller ones have more kernels.

Columns: implementation (captured, eager, published), precision, batch_size, pairs; seconds_first, the three evaluations
before the timed ones, which compile and record; seconds_evaluation, the median of the timed ones, up to the metrics on
the host; eval_samples_per_s; launches and kernels of one evaluation; peak_memory_gib, beyond what was held before.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.full_training import random_data
from benchmarks.published_baseline import build_published_step
from benchmarks.published_step import published_predictions
from benchmarks.report import Report
from benchmarks.rows import Row, short, table
from benchmarks.step import BATCH_SIZE, SIZES
from benchmarks.whole_steps import TINY_STEP, launches_of
from pps_fast.config import EvaluationPrecision, PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.store import Store
from pps_fast.eval.evaluate import score
from pps_fast.eval.predictions import predict_samples
from pps_fast.eval.predictor import Predictor
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.types import FeatureSizes

# pairs and videos of Charades-STA's test split
PAIRS, VIDEOS = 3_158, 1_334
# precision and batch size; the first two are the headline
SETTINGS: tuple[tuple[EvaluationPrecision, int], ...] = (
    ("bf16", 512),
    ("fp32", 512),
    ("bf16", 256),
    ("bf16", 128),
)
# evaluations before the timed ones: a shape is recorded when it comes again
_WARM_UPS, _REPETITIONS = 3, 3
# how the warning of a capture that failed begins
RUNS_EAGERLY = "evaluation runs eagerly"
_TIMES = ("seconds_first", "seconds_evaluation", "eval_samples_per_s")


def evaluations(report: Report) -> None:
    """The stage."""
    if report.left() <= 0:
        report.add("evaluation", "not run", why="the stage's share of the budget is spent")
        return
    (sizes, lengths), config, counts = SIZES["charades"], PRESETS["charades"], (0, PAIRS, VIDEOS)
    settings = SETTINGS
    if report.is_dry:
        sizes, counts = FeatureSizes(frame_dim=8, word_dim=6, vocab_size=23, num_segments=16), (0, 24, 4)
        config, settings = PRESETS["tiny"], (("bf16", 8), ("fp32", 8))
    store = Store(random_data(sizes, lengths, counts), report.device)
    torch.manual_seed(0)
    model = PPS(config, sizes).to(report.device)
    for precision, size in settings:
        changes = {"inference.batch_size": size, "inference.precision": precision}
        _add_ours(report, model, store, override(config, changes))
    _add_published(report, store)


def _add_ours(report: Report, model: PPS, store: Store, config: PPSConfig) -> None:
    """Adds the rows of one precision and batch size: eager, and captured if the answers agree."""
    samples, options = np.arange(store.data.num_samples), config.inference
    answers = []
    for name in ("eager", "captured"):
        changed = override(config, {"inference.capture": name == "captured"})
        about = {"implementation": name, "precision": options.precision, "batch_size": options.batch_size}

        def build(changed: PPSConfig = changed) -> Callable[[], Any]:
            predictor = Predictor(model, changed, store.device)
            answer = partial(predict_samples, model, store, samples, changed, predictor=predictor)
            for _ in range(_WARM_UPS):
                last = answer()
            answers.append(last)
            if any(not torch.equal(value, getattr(last, field)) for field, value in vars(answers[0]).items()):
                raise RuntimeError("captured answers are not equal to the eager ones")
            return partial(score, model, store, samples, changed, predictor=predictor)

        _add(report, about, len(samples), build)


def _add_published(report: Report, store: Store) -> None:
    """Adds the row of the published evaluation step, on twenty batches."""
    size = 8 if report.is_dry else BATCH_SIZE
    samples = np.arange(store.data.num_samples)[: size * 20]
    about = {"implementation": "published", "precision": "fp32", "batch_size": size}

    def build() -> Callable[[], None]:
        config = override(PRESETS["charades_released"], TINY_STEP if report.is_dry else {})
        model = build_published_step(config, store.sizes, report.device).model.eval().requires_grad_(False)

        def evaluate() -> None:
            for first in range(0, len(samples), size):
                published_predictions(model, store.batch(samples[first : first + size], seed=0))

        evaluate()
        return evaluate

    _add(report, about, len(samples), build)


def _add(report: Report, about: Row, pairs: int, build: Callable[[], Callable[[], Any]]) -> None:
    """Adds a row: `build` makes all that is not timed, and returns what is."""
    about, device = {**about, "pairs": pairs}, report.device
    if report.left() <= 0:
        report.add("evaluation", "left out", **about, why="the stage's share of the budget is spent")
        return
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with warnings.catch_warnings():
            # a batch that cannot be captured runs eagerly, which is the other row
            warnings.filterwarnings("error", message=RUNS_EAGERLY)
            begin = time.perf_counter()
            evaluate = build()
            first = time.perf_counter() - begin
            seconds = statistics.median(_seconds(evaluate) for _ in range(1 if report.is_dry else _REPETITIONS))
            counted = {} if report.is_dry else launches_of(evaluate, device)
    # what breaks is told, and the others are tried
    except Exception as error:
        report.add("evaluation", "failed", **about, why=f"{type(error).__name__}: {error}"[:2000])
        return
    if device.type == "cuda":
        counted["peak_memory_gib"] = round((torch.cuda.max_memory_allocated(device) - before) / 2**30, 2)
    times = dict(zip(_TIMES, map(short, (first, seconds, pairs / seconds)), strict=True))
    report.add("evaluation", "ok", **about, **counted, **report.measured(**times))


def _seconds(evaluate: Callable[[], Any]) -> float:
    """Of a call, which ends with values on the host."""
    begin = time.perf_counter()
    evaluate()
    return time.perf_counter() - begin


def evaluation_table(rows: list[Row]) -> list[str]:
    """Returns the rows as a Markdown table."""
    columns = ("implementation", "precision", "batch_size", "pairs", *_TIMES, "launches", "kernels", "peak_memory_gib")
    shown = [[row.get(name, "-") for name in columns] for row in rows if "implementation" in row]
    names = ("evaluation", "precision", "batch size", "pairs", "first, s", "seconds", "pairs/s")
    header = (*names, "launches", "kernels", "peak memory, GiB")
    return [*table(header, shown), "", "Fewer seconds, launches and less memory are better."]
