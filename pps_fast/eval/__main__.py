"""python -m pps_fast.eval: score a checkpoint beside the rows that do not look at the video."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from pps_fast.cli import Device, choose_device, exit_status, set_threads
from pps_fast.config import PPSConfig, Selector
from pps_fast.data.load import load_data
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import Splits, select_samples
from pps_fast.data.store import Store
from pps_fast.eval.evaluate import evaluate
from pps_fast.eval.report import format_table, write_predictions, write_report
from pps_fast.runs.checkpoint import describe_data, find_checkpoint, load_model, read_header

PROGRAM = "python -m pps_fast.eval"
DESCRIPTION = """Scores a checkpoint of `python -m pps_fast.train`.

Prints R@n, IoU >= m and mIoU with 95 % intervals, beside what is reached without looking at the video (the whole
video, the best fixed intervals) and beside the model's answers to shuffled queries.

examples:
  python -m pps_fast.eval --checkpoint runs/demo
  python -m pps_fast.eval --checkpoint runs/clip --data charades_clip.h5 --predictions moments.jsonl
  python -m pps_fast.eval --checkpoint runs/demo --split validation --seed 1 --out runs/demo/seed1
"""


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Options of the command."""

    checkpoint: Path
    """run directory of `python -m pps_fast.train`, or one of its checkpoints"""
    data: Path | None = None
    """file written by `python -m pps_fast.prepare`; without one, what the checkpoint was trained on"""
    split: Literal["test", "validation", "train"] = "test"
    """which samples are scored; the blind rows are always fitted on the training samples"""
    fold: int | None = None
    """test on this fold; without one, as the checkpoint was trained"""
    out: Path | None = None
    """folder for evaluation_SPLIT.json and .md; without one, the checkpoint's"""
    seed: int | None = None
    """of hidden words, shuffled queries and bootstrap; without one, the checkpoint's inference.seed"""
    selector: Selector | None = None
    """how the top-1 moment is chosen; without one, the checkpoint's inference.selector"""
    predictions: Path | None = None
    """also write every ranked moment, in seconds, to this file of JSON lines"""
    device: Device = "auto"
    """where to run; 'auto' is cuda where there is one"""
    threads: int | None = None
    """CPU threads"""


def run(arguments: EvalArguments) -> int:
    """Evaluates, prints and writes the report; returns the exit status.

    Raises:
        ValueError: for a checkpoint, data set or option that cannot be used.
    """
    set_threads(arguments.threads)
    device = choose_device(arguments.device)
    out = _writable(arguments.out or arguments.checkpoint, arguments.predictions)
    model, trained, sizes = load_model(arguments.checkpoint, device)
    config = _apply(arguments, trained)
    data = load_data(config.data)
    if data.sizes != sizes:
        raise ValueError(
            f"the data set has {data.sizes}, the checkpoint was trained with {sizes}; choose it with --data"
        )
    splits = select_samples(data, config.data)
    _check_origin(arguments, trained, data, splits)
    report = evaluate(model, Store(data, device), splits, config, split=arguments.split)
    print(format_table(report))
    try:
        written = write_report(out, report, config, data)
        if arguments.predictions is not None:
            written.append(write_predictions(arguments.predictions, report, data))
    except OSError as error:
        raise ValueError(f"the results cannot be written: {error}; choose another place with --out") from error
    print(f"\nwritten: {', '.join(map(str, written))}")
    return 0


def _writable(out: Path, predictions: Path | None) -> Path:
    """Returns `out`; refuses, before the long part, places where nothing can be written."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    if predictions is not None and (predictions.is_dir() or not predictions.parent.is_dir()):
        raise ValueError(f"--predictions {predictions}: expected a file in a folder that exists")
    return out


def _apply(arguments: EvalArguments, trained: PPSConfig) -> PPSConfig:
    """Returns the checkpoint's config with the options that were given in place of its own."""
    if arguments.seed is not None and arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed}: expected 0 or more")
    data = {"path": None if arguments.data is None else str(arguments.data), "fold": arguments.fold}
    inference = {"seed": arguments.seed, "selector": arguments.selector}
    return replace(trained, data=_given(trained.data, data), inference=_given(trained.inference, inference))


def _given(part: Any, values: dict[str, Any]) -> Any:
    """Returns a part of a config with those values that are not None."""
    return replace(part, **{name: value for name, value in values.items() if value is not None})


def _check_origin(arguments: EvalArguments, trained: PPSConfig, data: PreparedData, splits: Splits) -> None:
    """Refuses to pass samples the checkpoint was trained on off as unseen; says so where it cannot know."""
    header = read_header(find_checkpoint(arguments.checkpoint))
    if describe_data(data) != header.data:
        print(
            f"note: the checkpoint was trained on another data set ({header.data['name']!r}): whether it has seen "
            "these videos is unknown, and its word classes must mean the same words",
            file=sys.stderr,
        )
        return
    if arguments.split == "train":
        return
    seen = np.isin(getattr(splits, arguments.split), select_samples(data, trained.data).train)
    if seen.any():
        raise ValueError(
            f"--fold {arguments.fold}: the checkpoint was trained on {int(seen.sum())} of the {len(seen)} samples of "
            f"that {arguments.split} split; leave --fold out (it was trained for fold {trained.data.fold})"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def program() -> int:
        return run(tyro.cli(EvalArguments, args=list(argv), prog=PROGRAM, description=DESCRIPTION))

    return exit_status(program)


if __name__ == "__main__":
    sys.exit(main())
