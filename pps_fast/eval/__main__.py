"""python -m pps_fast.eval: score a trained model beside baselines that do not look at the video."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pps_fast.cli import exit_status, parse
from pps_fast.config import Selector
from pps_fast.devices import Device
from pps_fast.help_text import Program
from pps_fast.text_table import terminal_columns


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Options of the command."""

    model: Path
    """run folder of `python -m pps_fast.train`, or one of its checkpoints"""
    data: Path | None = None
    """data file written by `python -m pps_fast.prepare`; default: the one the model was trained on"""
    split: Literal["test", "validation", "train"] = "test"
    """which samples are scored"""
    fold: int | None = None
    """test on this fold; default: the fold the model was trained for"""
    out: Path | None = None
    """folder for evaluation_SPLIT.json and .md, and predictions_SPLIT.jsonl; default: the model's"""
    seed: int | None = None
    """seed of hidden words, shuffled queries and bootstrap; default: the model's inference.seed"""
    selector: Selector | None = None
    """how the answer is chosen among the proposals; default: as the model was trained with"""
    predictions: Path | None = None
    """also write the predictions to this file: a line of JSON for each query, with all its moments in seconds"""
    device: Device = "auto"
    """where to run; auto is the GPU if there is one"""
    threads: int | None = None
    """CPU threads"""


PROGRAM = Program(
    name="eval",
    description="""Scores a model that `python -m pps_fast.train` has trained.

Prints R@n, IoU >= m and mIoU with 95 % intervals, beside blind baselines (the whole video, the best fixed intervals)
and beside the model's own answers to shuffled queries.""",
    options=EvalArguments,
    first=("model", "data", "split", "fold", "out", "seed", "selector", "predictions", "device", "threads"),
    aliases={"--checkpoint": "--model"},
    examples="""python -m pps_fast.eval --model runs/demo
python -m pps_fast.eval --model runs/clip --data charades_clip.h5 --predictions moments.jsonl
python -m pps_fast.eval --model runs/demo --split validation --seed 1 --out runs/demo/seed1""",
)


def run(arguments: EvalArguments) -> int:
    """Evaluates, prints and writes the report; returns the exit status.

    Raises:
        ValueError: for a checkpoint, data set or option that cannot be used.
    """
    from pps_fast.eval.report import format_table, write_predictions
    from pps_fast.pipeline import evaluate_checkpoint

    if arguments.seed is not None and arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed}: expected 0 or more")
    out = _writable(arguments.out or arguments.model, arguments.predictions)
    changes = {
        "data.path": None if arguments.data is None else str(arguments.data),
        "data.fold": arguments.fold,
        "inference.seed": arguments.seed,
        "inference.selector": arguments.selector,
    }
    evaluation = evaluate_checkpoint(
        arguments.model,
        changes,
        split=arguments.split,
        device=arguments.device,
        threads=arguments.threads,
        out=out,
        progress=True,
    )
    written = list(evaluation.written)
    if arguments.predictions is not None:
        written.append(write_predictions(arguments.predictions, evaluation.report, evaluation.data))
    if evaluation.note is not None:
        print(f"note: {evaluation.note}", file=sys.stderr)
    print(format_table(evaluation.report, terminal_columns()))
    print(f"\nwritten: {', '.join(map(str, written))}")
    return 0


def _writable(out: Path, predictions: Path | None) -> Path:
    """Returns `out`; refuses, before the evaluation, paths that cannot be written to."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    if predictions is not None and (predictions.is_dir() or not predictions.parent.is_dir()):
        raise ValueError(f"--predictions {predictions}: expected a file in a folder that exists")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
