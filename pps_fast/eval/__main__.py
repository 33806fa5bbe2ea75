"""python -m pps_fast.eval: score a checkpoint beside baselines that do not look at the video."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from pps_fast.cli import exit_status
from pps_fast.config import Selector
from pps_fast.devices import Device
from pps_fast.eval.report import format_table, write_predictions
from pps_fast.pipeline import evaluate_checkpoint
from pps_fast.text_table import terminal_columns

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
    """which samples are scored; blind baselines are always fitted on the training samples"""
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
    if arguments.seed is not None and arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed}: expected 0 or more")
    out = _writable(arguments.out or arguments.checkpoint, arguments.predictions)
    changes = {
        "data.path": None if arguments.data is None else str(arguments.data),
        "data.fold": arguments.fold,
        "inference.seed": arguments.seed,
        "inference.selector": arguments.selector,
    }
    evaluation = evaluate_checkpoint(
        arguments.checkpoint,
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

    def program() -> int:
        return run(tyro.cli(EvalArguments, args=list(argv), prog=PROGRAM, description=DESCRIPTION))

    return exit_status(program)


if __name__ == "__main__":
    sys.exit(main())
