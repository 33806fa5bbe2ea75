"""Whole runs from a config: train and evaluate a model, or evaluate one that was saved.

The programs `pps_fast.train` and `pps_fast.eval`, the experiments of `lab`, and users of the package call the same
two functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pps_fast.config import EvaluationPrecision, PPSConfig, Selector
from pps_fast.config_tree import flatten, override, to_dict
from pps_fast.data.load import load_data
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import Splits, select_samples
from pps_fast.data.store import Store
from pps_fast.devices import Device, choose_device, choose_precision, keep_freed_memory, set_threads
from pps_fast.distributed import ALONE, TIMEOUT_S, World
from pps_fast.eval import evaluate as scoring
from pps_fast.eval.report import write_report
from pps_fast.eval.results import EvalReport
from pps_fast.model import Model, require_model_memory
from pps_fast.process_group import joined
from pps_fast.runs.checkpoint import find_checkpoint, load_model, read_newest
from pps_fast.runs.lock import owning
from pps_fast.runs.matching import differing_sizes, match_data
from pps_fast.runs.run_directory import check_run, read_config
from pps_fast.train.closed_form import fit_in_closed_form
from pps_fast.train.loop import TrainResult, train
from pps_fast.train.options import require_separable
from pps_fast.types import FeatureSizes

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """What a run reads.

    Attributes:
        config: of the run, with 'auto' decided.
        store: the data set on the device that trains.
        splits: which of its samples train, validate and test.
        reason: why 'auto' stands for the precision in `config`; None where the precision was named.
        world: processes that share the run.
    """

    config: PPSConfig
    store: Store
    splits: Splits
    reason: str | None
    world: World = ALONE


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        step: updates made in all.
        stopped_by: number of the signal that stopped the training early, or None. The run can be resumed.
        report: evaluation of the saved model on the test split; None for a training that was stopped, and where there
            is no test split.
        written: files of the report, if there is one.
        model_dir: directory of the checkpoint to use, the best one where a validation split chose it.
        data: the data set.
        device: where the model was trained.
    """

    step: int
    stopped_by: int | None
    report: EvalReport | None
    written: tuple[Path, ...]
    model_dir: Path
    data: PreparedData
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation and what it was made from.

    Attributes:
        report: all figures.
        config: the model's config, with the options of the evaluation in it.
        data: the data set.
        written: files of the report, none without a folder for them.
        note: a sentence where it is unknown whether the model has seen the scored videos in training, else None.
    """

    report: EvalReport
    config: PPSConfig
    data: PreparedData
    written: tuple[Path, ...]
    note: str | None


def train_and_evaluate(
    config: PPSConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    progress: bool = True,
    on_start: Callable[[RunInput], None] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> RunResult:
    """Trains a model, evaluates what was saved on the test split, and writes everything below `out`.

    Args:
        config: names the data set, the model and the training; see `presets.PRESETS` and `config_tree.override`.
        out: run directory; empty or new without `resume`.
        resume: continue the run in `out`, bit for bit as if it had never stopped.
        device: where to train; 'auto' is cuda where there is one.
        threads: CPU threads of this process, 1 or more; None leaves torch's own choice.
        progress: show on stderr how far training and evaluation are.
        on_start: called with the loaded data before training begins.
        timeout_s: under torchrun, whose processes compute one run together, how long they wait for each other.
    Raises:
        ValueError: for data, options, a device or a run directory that cannot be used.
        NonFiniteLossError: when training met a loss or gradient that is not finite; the last checkpoint stays.
    """
    set_threads(threads)
    keep_freed_memory()
    if config.data.path is not None:
        # the run is resumed and evaluated from any directory
        config = override(config, {"data.path": str(Path(config.data.path).absolute())})
    # until the report is written
    with joined(timeout_s) as world, owning(Path(out)) if world.is_first else nullcontext():
        run_input = _read_input(config, Path(out), resume, device, world)
        if on_start is not None:
            on_start(run_input)
        trained = _train(run_input, Path(out), resume, progress)
        return _report_run(trained, run_input, Path(out), progress)


def _read_input(config: PPSConfig, out: Path, resume: bool, device: Device, world: World) -> RunInput:
    """Reads what a run needs, and refuses a model that does not fit into the memory beside it."""
    require_separable(config, world)
    on_device = world.device(device)
    config, reason = _decide_precision(config, on_device, out if resume else None)
    config = override(config, {"train.precision": world.tell(config.train.precision)})
    if world.is_first:
        check_run(out, config, resume)
    # the same file may lie elsewhere on another machine; its content is compared
    world.require_same(device=on_device.type, options=flatten(to_dict(override(config, {"data.path": None}))))
    store = Store(load_data(config.data, copies=world.place.local_size), on_device, config.data.residence)
    # weights; on a CPU also their gradients and the optimizer's two moments
    require_model_memory(config, store.sizes, 4 if on_device.type == "cpu" else 1)
    splits = select_samples(store.data, config.data)
    return RunInput(config=config, store=store, splits=splits, reason=reason, world=world)


def _train(run_input: RunInput, out: Path, resume: bool, progress: bool) -> TrainResult:
    config, store, splits, world = run_input.config, run_input.store, run_input.splits, run_input.world
    if config.method == "alignment":
        return fit_in_closed_form(config, store, splits, out, resume=resume, progress=progress)
    scorer = scoring.validation_scorer(store, splits.validation, config, world)
    return train(config, store, splits, out, resume=resume, evaluate=scorer, progress=progress, world=world)


def _decide_precision(config: PPSConfig, device: torch.device, run: Path | None) -> tuple[PPSConfig, str | None]:
    """Replaces the precision 'auto' by that of the run that is resumed, or else by the device's; and says why."""
    if config.train.precision != "auto":
        return config, None
    if run is None:
        precision, reason = choose_precision(device)
    else:
        precision, reason = read_config(run).train.precision, "the run began with it"
    return override(config, {"train.precision": precision}), reason


def _report_run(trained: TrainResult, run_input: RunInput, out: Path, progress: bool) -> RunResult:
    """Evaluates what a training has saved and writes the report, unless it was stopped or there is no test split."""
    config, store, world = run_input.config, run_input.store, run_input.world
    report: EvalReport | None = None
    written: list[Path] = []
    # what the first process has saved is there
    world.require_same(step=trained.step)
    if trained.stopped_by is None and len(run_input.splits.test):
        # what is reported is what was saved
        trained.ensure_saved()
        model, _, _ = load_model(out, store.device)
        report = scoring.evaluate(model, store, run_input.splits, config, progress=progress, world=world)
        trained.ensure_saved()
        written = write_report(out, report, config, store.data) if world.is_first else []
    return RunResult(
        step=trained.step,
        stopped_by=trained.stopped_by,
        report=report,
        written=tuple(written),
        model_dir=find_checkpoint(out),
        data=store.data,
        device=store.device,
    )


def evaluate(
    model_dir: str | Path,
    *,
    data: str | Path | None = None,
    split: SplitName = "test",
    fold: int | None = None,
    seed: int | None = None,
    precision: EvaluationPrecision | None = None,
    selector: Selector | None = None,
    device: Device = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
) -> EvalReport:
    """Scores a saved model beside the blind baselines and beside its own answers to shuffled queries.

    Args:
        model_dir: run directory of `train_and_evaluate`, one of its checkpoints, or another model folder.
        data: file written by `python -m pps_fast.prepare`; None is what the model was trained on.
        split: which samples are scored; blind baselines are always fitted on the training samples.
        fold: test on this fold of the data; None is as the model was trained.
        seed: of hidden words, shuffled queries and bootstrap; None is the model's `inference.seed`.
        precision, selector: None is the model's `inference.precision` and `inference.selector`.
        device, threads: as for `train_and_evaluate`.
        out: folder for evaluation_SPLIT.json and .md, and predictions_SPLIT.jsonl; None writes nothing.
    Raises:
        ValueError: for a model, data set or option that cannot be used, or samples that the model was trained on.
    Warns:
        UserWarning: where it is unknown whether the model has seen the scored videos in training.
    """
    changes = {
        "data.path": None if data is None else str(data),
        "data.fold": fold,
        "inference.seed": seed,
        "inference.precision": precision,
        "inference.selector": selector,
    }
    evaluation = evaluate_checkpoint(Path(model_dir), changes, split=split, device=device, threads=threads, out=out)
    if evaluation.note is not None:
        warnings.warn(evaluation.note, stacklevel=2)
    return evaluation.report


def evaluate_checkpoint(
    model_dir: Path,
    changes: Mapping[str, Any],
    *,
    split: SplitName = "test",
    device: Device = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Scores a saved model with some fields of its config replaced; see `evaluate`, which is for users.

    Args:
        changes: dotted field of the config -> its value; None leaves the model's own. Features live where they fit.
        progress: show on stderr how far the evaluation is.
    Raises:
        ValueError: as `evaluate`.
    """
    set_threads(threads)
    keep_freed_memory()
    on_device = choose_device(device)
    asked = {"data.residence": "auto"} | {name: value for name, value in changes.items() if value is not None}
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"out = {out}: is a file; name a folder")

    def read(folder: Path) -> tuple[Model, PPSConfig, FeatureSizes, PreparedData, str | None, PPSConfig]:
        model, trained, sizes = load_model(folder, on_device)
        config = override(trained, asked)
        data, note = match_data(folder, load_data(config.data), is_chosen=changes.get("data.path") is not None)
        return model, config, sizes, data, note, trained

    model, config, sizes, data, note, trained = read_newest(model_dir, "best", read)
    if data.sizes != sizes:
        raise ValueError(f"{differing_sizes(data.sizes, sizes)}; choose the data set of the model with --data")
    splits = select_samples(data, config.data, is_for_training=False)
    if note is None:
        _check_unseen(trained, config, data, splits, split)
    report = scoring.evaluate(model, Store(data, on_device), splits, config, split=split, progress=progress)
    written = [] if out is None else write_report(out, report, config, data)
    return Evaluation(report=report, config=config, data=data, written=tuple(written), note=note)


def _check_unseen(trained: PPSConfig, config: PPSConfig, data: PreparedData, splits: Splits, split: str) -> None:
    """Refuses to score training samples as unseen ones; `trained` is the config of the training."""
    scored = scoring.samples_of(splits, split)
    seen = np.isin(scored, select_samples(data, trained.data).train)
    if split != "train" and seen.any():
        raise ValueError(
            f"fold = {config.data.fold}: the model was trained on {int(seen.sum())} of the {len(scored)} samples of "
            f"that {split} split; leave the fold out (it was trained for fold {trained.data.fold})"
        )
