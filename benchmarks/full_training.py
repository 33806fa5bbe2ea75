"""A whole training of Charades' size, and a short one beside the published formulation: stages of the GPU report.

`training` runs the program's own path, `train.loop.train` with captured steps, a store on the device, checkpoints and
an evaluation after every epoch, on random data of the sizes of Charades-STA's files: 10,602 pairs to train on, 3,158
to evaluate. When the stage's time runs out it stops after a whole epoch, as Ctrl-C would.

Columns: precision, pairs, evaluated_pairs, epochs (wanted), epochs_measured; seconds_measured, from the call of `train`
to its return; seconds_first_epoch, with compilation and capture; seconds_epoch, the median of the others (of all, if
there is one), with its evaluation, seconds_evaluation, and its checkpoints; seconds_all_epochs, measured or, where
`extrapolated` says so, with seconds_epoch for those that are missing; seconds_paper_extrapolated, the same for the
paper's 12,408 pairs, always computed; train_samples_per_s, the median of the log's lines; eval_samples_per_s;
peak_memory_gib; warnings.

`curves` trains the published formulation and ours, in fp32 and bf16, on the same batches from the same weights, without
dropout, on planted data. Columns: steps; first, largest and last difference of the losses from the published ones, and
where the largest is; metrics and metric_differences in points, after the last step.
"""

from __future__ import annotations

import json
import signal
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.published_baseline import build_published_step, hidden_positions, load_live_weights, published_total
from benchmarks.published_step import published_predictions
from benchmarks.report import Report
from benchmarks.rows import Row, short, table
from benchmarks.step import LENGTH_QUANTILES, MAX_NUM_WORDS, SIZES, build_step
from benchmarks.whole_steps import RUNS_EAGERLY, TINY_STEP
from pps_fast.config import PPSConfig, Precision
from pps_fast.config_tree import override
from pps_fast.data.load import load_data
from pps_fast.data.prepared import PreparedData
from pps_fast.data.sampler import epoch_batches
from pps_fast.data.splits import Splits, select_samples
from pps_fast.data.store import Store
from pps_fast.eval.evaluate import validation_scorer
from pps_fast.eval.metrics import clip_prediction, metric_means, sample_table
from pps_fast.model import PPS
from pps_fast.predict import predict
from pps_fast.presets import PRESETS
from pps_fast.published.weights import export_released
from pps_fast.train.cuda_graph import CapturedStep, EagerStep
from pps_fast.train.loop import train
from pps_fast.train.schedule import learning_rate
from pps_fast.types import Batch, FeatureSizes, Prediction

# pairs of the published files, and of the paper
TRAIN_PAIRS, EVALUATED_PAIRS, PAPER_PAIRS = 10_602, 3_158, 12_408
NUM_VIDEOS = 6_672
# share of the stage's time for each precision, of what the ones before left; the first is the headline
PRECISIONS: dict[Precision, float] = {"bf16": 0.6, "tf32": 0.5, "fp32": 0.7}
CURVE_STEPS = 200
# largest relative difference of the first loss from the published formulation's
FIRST_LOSS: dict[Precision, float] = {"fp32": 1e-4, "bf16": 2e-2}


def random_data(sizes: FeatureSizes, lengths: tuple[int, ...], counts: tuple[int, int, int]) -> PreparedData:
    """Returns random data of real sizes, whose content is worth nothing; there are few videos, many times.

    Args:
        lengths: quantiles 5, 50, 95 % of the sentences' lengths, and the longest.
        counts: training pairs, validation pairs, videos.
    """
    num_train, num_validation, num_videos = counts
    num_pairs, columns, rng = num_train + num_validation, MAX_NUM_WORDS, np.random.default_rng(0)
    num_words = np.interp(rng.random(num_pairs), LENGTH_QUANTILES, lengths).round().astype(np.int64)
    is_word = np.arange(columns) < num_words[:, None]
    few = rng.standard_normal((min(num_videos, 64), sizes.num_segments, sizes.frame_dim), np.float32)
    vectors = rng.standard_normal((sizes.vocab_size, sizes.word_dim), np.float32)
    vectors[0] = 0
    start = rng.uniform(0, 20, num_pairs)
    return PreparedData(
        video_ids=[f"video_{index}" for index in range(num_videos)],
        duration_s=np.full(num_videos, 30.0),
        features=few.astype(np.float16)[np.arange(num_videos) % len(few)],
        words=["<pad>", *(f"word_{index}" for index in range(1, sizes.vocab_size))],
        word_vectors=vectors,
        sample_video=rng.integers(0, num_videos, num_pairs),
        sentences=["of random words"] * num_pairs,
        word_ids=rng.integers(1, sizes.vocab_size, (num_pairs, columns)) * is_word,
        num_words=num_words,
        hide_prob=(is_word / num_words[:, None]).astype(np.float32),
        window_s=np.stack([start, start + rng.uniform(2, 10, num_pairs)], 1),
        window_sample=np.arange(num_pairs),
        split=np.where(np.arange(num_pairs) < num_train, "train", "validation"),
        fold=np.full(num_pairs, -1, dtype=np.int64),
        provenance={"name": "random data of real sizes"},
    )


def training(report: Report) -> None:
    """The stage of whole trainings."""
    if report.left() <= 0:
        report.add("training", "not run", why="the stage's share of the budget is spent")
        return
    sizes, lengths = SIZES["charades"]
    config, counts = PRESETS["charades"], (TRAIN_PAIRS, EVALUATED_PAIRS, NUM_VIDEOS)
    if report.is_dry:
        sizes, counts = FeatureSizes(frame_dim=8, word_dim=6, vocab_size=23, num_segments=16), (12, 8, 4)
        config = override(PRESETS["tiny"], {"train.epochs": 2})
    store = Store(random_data(sizes, lengths, counts), report.device)
    every = np.arange(counts[0] + counts[1])
    splits = Splits(train=every[: counts[0]], validation=every[counts[0] :], test=every[counts[0] :])
    for precision, share in PRECISIONS.items():
        changes = {"train.precision": precision, "train.evaluate_every": 1}
        _train(report, override(config, changes), store, splits, share * report.left())


class _Clock:
    """Scores a model after each epoch, notes when, and asks the loop to stop while whole epochs still fit."""

    def __init__(self, store: Store, splits: Splits, config: PPSConfig, seconds: float) -> None:
        self.begin = time.perf_counter()
        self.ends, self.evaluations = [self.begin], []
        self._score = validation_scorer(store, splits.validation, config)
        self._deadline, self._epochs = self.begin + seconds, config.train.epochs

    def __call__(self, model: PPS) -> dict[str, float]:
        begin = time.perf_counter()
        metrics = self._score(model)
        end = time.perf_counter()
        self.evaluations.append(end - begin)
        self.ends.append(end)
        if len(self.evaluations) < self._epochs and end + self.epoch > self._deadline:
            signal.raise_signal(signal.SIGTERM)
        return metrics

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch and its evaluation; the checkpoint of an epoch is written in the next."""
        return [end - begin for begin, end in zip(self.ends, self.ends[1:], strict=False)]

    @property
    def epoch(self) -> float:
        """Seconds of an epoch after the first."""
        return statistics.median(self.epochs[1:] or self.epochs)


def _train(report: Report, config: PPSConfig, store: Store, splits: Splits, seconds: float) -> None:
    """Trains in one precision and adds its row."""
    pairs, evaluated = len(splits.train), len(splits.validation)
    about = {"what": "training", "precision": config.train.precision, "pairs": pairs, "evaluated_pairs": evaluated}
    about |= {"epochs": config.train.epochs, "batch_size": config.train.batch_size}
    is_cuda = report.device.type == "cuda"
    if seconds <= 0:
        report.add("training", "not run", **about, why="the stage's share of the budget is spent")
        return
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clock = _Clock(store, splits, config, seconds)
    try:
        with tempfile.TemporaryDirectory() as run, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = train(config, store, splits, run, evaluate=clock, progress=False)
            measured = time.perf_counter() - clock.begin
            lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    # what training breaks on is told, and the other precisions are tried
    except Exception as error:
        report.add("training", "failed", **about, why=f"{type(error).__name__}: {error}"[:2000])
        return
    logged = [line for line in lines if "loss" in line]
    row = {"epochs_measured": len(clock.epochs), "steps": result.step, "last_loss": logged[-1]["loss"]}
    row |= {"warnings": [str(item.message) for item in warned]}
    if is_cuda:
        row["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    speeds = [line["samples_per_s"] for line in logged]
    times = _totals(clock, measured, config.train.epochs, pairs)
    times |= {"train_samples_per_s": statistics.median(speeds)}
    times |= {"eval_samples_per_s": evaluated / times["seconds_evaluation"]}
    rounded = {name: value if isinstance(value, bool) else short(value) for name, value in times.items()}
    # a capture that failed leaves a slower training than the one asked for
    slower = "; ".join(text for text in row["warnings"] if text.startswith(RUNS_EAGERLY))
    status = {"status": "failed", "why": slower} if slower else {"status": "ok"}
    report.add("training", **status, **about, **row, **report.measured(**rounded))


def _totals(clock: _Clock, measured: float, epochs: int, pairs: int) -> Row:
    """Seconds of all epochs, those that were not measured at the speed of the others."""
    missing, evaluation = epochs - len(clock.epochs), statistics.median(clock.evaluations)
    everything = measured + missing * clock.epoch
    # the paper has more pairs in an epoch; its evaluations are taken to be as long
    longer = epochs * (clock.epoch - evaluation) * (PAPER_PAIRS / TRAIN_PAIRS - 1)
    return {
        "seconds_measured": measured,
        "seconds_first_epoch": clock.epochs[0],
        "seconds_epoch": clock.epoch,
        "seconds_evaluation": evaluation,
        "seconds_all_epochs": everything,
        "extrapolated": missing > 0,
        "seconds_paper_extrapolated": everything + longer,
    }


def curves(report: Report) -> None:
    """The stage of the short trainings: published formulation, ours in fp32, ours in bf16."""
    if report.left() <= 0:
        report.add("curves", "not run", why="the stage's share of the budget is spent")
        return
    planted = {"data.planted.num_segments": 200, "data.planted.frame_dim": 1024, "train.warmup_updates": 50}
    if report.is_dry:
        planted = {**TINY_STEP, "proposals.num_proposals": 3, "train.batch_size": 4, "reconstructor.stride": 1}
        planted |= {"data.planted.num_videos": 10, "data.planted.num_segments": 16, "train.warmup_updates": 2}
    config = override(PRESETS["charades_released"], {**planted, "encoder.dropout": 0.0})
    data = load_data(config.data)
    store, splits = Store(data, report.device), select_samples(data, config.data)
    steps = 3 if report.is_dry else CURVE_STEPS
    published, expected = _published_curve(config, store, splits, steps)
    about = {"steps": steps, "pairs": len(splits.train), "evaluated_pairs": len(splits.test)}
    row = {"implementation": "published", "precision": "fp32", **about}
    report.add("curves", "ok", **row, losses=published, metrics=expected)
    for precision, limit in FIRST_LOSS.items():
        if report.left() <= 0:
            row = {"implementation": "ours", "precision": precision, **about}
            report.add("curves", "not run", **row, why="the budget is spent")
            continue
        losses, metrics = _our_curve(override(config, {"train.precision": precision}), store, splits, steps)
        far = np.abs(np.array(losses) - np.array(published))
        row = {"first_difference": far[0], "largest_difference": far.max(), "last_difference": far[-1]}
        row = {name: short(value, 3) for name, value in row.items()} | {"largest_at_step": int(far.argmax()) + 1}
        row["metric_differences"] = {name: round(metrics[name] - value, 3) for name, value in expected.items()}
        # a NaN is not below it
        is_close = far[0] <= limit * published[0] and np.isfinite(losses).all()
        status = {} if is_close else {"why": f"first loss {losses[0]}, published {published[0]}, last {losses[-1]}"}
        about_run = {"implementation": "ours", "precision": precision, **about}
        row_of_run = {"losses": losses, "metrics": metrics, **row, **status}
        report.add("curves", "ok" if is_close else "failed", **about_run, **row_of_run)


def _batches(config: PPSConfig, splits: Splits, steps: int) -> list[tuple[int, np.ndarray]]:
    """Epoch and samples of each step; batches of another size are left out, as they would not be captured."""
    size, seed, batches, epoch = config.train.batch_size, config.train.seed, [], 0
    while len(batches) < steps:
        batches += [(epoch, part) for part in epoch_batches(splits.train, size, seed, epoch) if len(part) == size]
        epoch += 1
    return batches[:steps]


def _published_curve(config: PPSConfig, store: Store, splits: Splits, steps: int) -> tuple[list[float], dict]:
    step, divisor = build_published_step(config, store.sizes, store.device), config.reconstructor.hidden_words_divisor
    load_live_weights(step.model, export_released(build_step(config, store.sizes, store.device).model))
    losses = []
    for number, (epoch, samples) in enumerate(_batches(config, splits, steps)):
        step.optimizer.learning_rate = learning_rate(number, config.train)
        batch = store.batch(samples, seed=config.train.seed, epoch=epoch)
        losses.append(published_total(step(batch, hidden_positions(batch, divisor))))
    model = step.model.eval()
    answer = lambda batch: published_predictions(model, batch, hidden_positions(batch, divisor))  # noqa: E731
    return losses, _metrics(answer, config, store, splits)


def _our_curve(config: PPSConfig, store: Store, splits: Splits, steps: int) -> tuple[list[float], dict]:
    step = build_step(config, store.sizes, store.device)
    run = EagerStep(step, store)
    if store.device.type == "cuda":
        run = CapturedStep(step, store, config.train.batch_size)
    losses = []
    for number, (epoch, samples) in enumerate(_batches(config, splits, steps)):
        step.optimizer.set_learning_rate(learning_rate(number, config.train))
        store.begin_pass(config.train.seed, epoch)
        losses.append(run(samples).clone().loss.total)
    model, selector = step.model.eval(), config.inference.selector
    with torch.no_grad():
        answer = lambda batch: predict(model(batch, with_negatives=False), selector)  # noqa: E731
        metrics = _metrics(answer, config, store, splits)
    return torch.stack(losses).tolist(), metrics


def _metrics(
    answer: Callable[[Batch], Prediction], config: PPSConfig, store: Store, splits: Splits
) -> dict[str, float]:
    """Metrics of the test split in batches of the training's size, the same for all: the preset mixes their samples."""
    size, totals = config.train.batch_size, []
    for first in range(0, len(splits.test), size):
        samples = splits.test[first : first + size]
        prediction = clip_prediction(answer(store.batch(samples, seed=config.inference.seed)))
        prediction = replace(prediction, **{name: value.cpu() for name, value in vars(prediction).items()})
        table = sample_table(prediction, torch.from_numpy(store.data.moment[samples]))
        totals.append((len(samples), metric_means(table, config.inference.iou_thresholds)))
    whole = sum(number for number, _ in totals)
    return {name: sum(n * means[name] for n, means in totals) / whole for name in totals[0][1]}


def training_table(rows: list[Row]) -> list[str]:
    """Returns the rows of `training` as Markdown tables."""
    lines: list[tuple[Any, ...]] = []
    for row in (row for row in rows if row.get("what") == "training"):
        start = (row["precision"], row["pairs"], f"{row.get('epochs_measured', 0)} of {row['epochs']}")
        if "seconds_epoch" not in row:
            lines.append((*start, "not measured" if row["status"] == "ok" else row["status"]))
            continue
        cells = [f"{row[f'seconds_{name}']:g}" for name in ("first_epoch", "epoch", "evaluation")]
        cells.append(f"{row['seconds_all_epochs']:g}{' (extrapolated)' if row['extrapolated'] else ''}")
        cells.append(f"{row['seconds_paper_extrapolated']:g} (extrapolated)")
        lines.append((*start, *cells, f"{row['train_samples_per_s']:g}", row.get("peak_memory_gib", "-")))
    names = ("precision", "pairs", "epochs measured", "first epoch, s", "epoch, s", "evaluation, s", "all epochs, s")
    shown = table((*names, "with the paper's pairs, s", "training pairs/s", "peak memory, GiB"), lines)
    return [*shown, "", "Fewer seconds, more pairs per second and less memory are better."]


def curve_table(rows: list[Row]) -> list[str]:
    """Returns the rows of `curves` as a Markdown table."""
    lines = []
    for row in (row for row in rows if "largest_difference" in row):
        metric = f"{max(map(abs, row['metric_differences'].values())):g} points"
        largest = f"{row['largest_difference']:g}, {row['largest_at_step']}"
        first, last = f"{row['first_difference']:g}", f"{row['last_difference']:g}"
        lines.append((row["steps"], row["precision"], first, largest, last, metric))
    names = ("steps", "precision", "first difference of the loss", "largest, at step", "last")
    return table((*names, "largest difference of a metric"), lines)
