"""python -m pps_fast.eval: score a model, or answers in a file, beside baselines that do not look at the video."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pps_fast.cli import exit_status, parse
from pps_fast.config import EvaluationPrecision, Selector
from pps_fast.devices import Device
from pps_fast.eval.answers import PredictionsForm
from pps_fast.files import refuse_input
from pps_fast.help_text import Program
from pps_fast.text_table import terminal_columns


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Options of the command."""

    model: Path | None = None
    """run folder of `python -m pps_fast.train`, one of its checkpoints, or another model folder"""
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
    precision: EvaluationPrecision | None = None
    """precision of matrix products; default: the model's inference.precision, fp32 unless the config names another"""
    selector: Selector | None = None
    """how the answer is chosen among the proposals; default: as the model was trained with"""
    predictions: Path | None = None
    """also write the predictions to this file: a line of JSON for each query, with all its moments in seconds"""
    predictions_form: PredictionsForm = "full"
    """form of that file: QVHighlights' submission with what scores it, that alone, or ranked_predicted_windows"""
    device: Device = "auto"
    """where to run; auto is the GPU if there is one"""
    threads: int | None = None
    """CPU threads"""
    thresholds: tuple[float, ...] | None = None
    """values of m in R@n, IoU >= m; default: the model's, 0.3 0.5 0.7 with --judge"""

    judge: Path | None = None
    """instead of a model: file of answers, in QVHighlights' submission form or with ranked_predicted_windows"""
    annotations: Path | None = None
    """with --judge: the queries with their times, in any form that `python -m pps_fast.prepare` reads"""
    durations: tuple[Path, ...] = ()
    """with --judge: csv files with columns id and length, for annotations in the txt format of Charades-STA"""
    protocol: Literal["full", "filtered", "as_is"] = "full"
    """with --judge: which annotated moments count, see `python -m pps_fast.prepare --help`"""
    against: Path | None = None
    """with --judge: a second file of answers to the same queries, for paired differences"""
    clip: bool = False
    """with --judge: clip the answers to their videos"""


PROGRAM = Program(
    name="eval",
    description="""Scores a model that `python -m pps_fast.train` has trained; with --judge, answers of any model in a
file.

Prints R@n, IoU >= m and mIoU with 95 % intervals, beside blind baselines (the whole video, the best fixed intervals)
and beside the model's own answers to shuffled queries; of judged answers also mAP as QVHighlights defines it.""",
    options=EvalArguments,
    first=(
        "model", "data", "split", "fold", "out", "seed", "selector", "predictions", "device",
        "judge", "annotations", "against", "clip",
    ),
    aliases={"--checkpoint": "--model"},
    examples="""python -m pps_fast.eval --model runs/demo
python -m pps_fast.eval --model runs/clip --data charades_clip.h5 --predictions moments.jsonl
python -m pps_fast.eval --judge answers.jsonl --annotations highlight_val_release.jsonl""",
)  # fmt: skip
# options of a model that judged answers have no use for
_OF_MODELS = ("data", "split", "fold", "precision", "selector", "predictions", "predictions_form", "device", "threads")
# options of judged answers
_OF_ANSWERS = ("annotations", "durations", "protocol", "against", "clip")
_THRESHOLDS = (0.3, 0.5, 0.7)


def run(arguments: EvalArguments) -> int:
    """Evaluates, prints and writes the report; returns the exit status.

    Raises:
        ValueError: for a checkpoint, data set or option that cannot be used.
    """
    _check(arguments)
    return _run_model(arguments) if arguments.judge is None else _run_judge(arguments, arguments.judge)


def _check(arguments: EvalArguments) -> None:
    """Refuses options that do not go together."""
    if (arguments.model is None) == (arguments.judge is None):
        raise ValueError("--model and --judge: give one of them: a model to evaluate, or a file of answers to score")
    kind, strange = ("--model", _OF_ANSWERS) if arguments.judge is None else ("--judge", _OF_MODELS)
    for item in fields(arguments):
        if item.name in strange and getattr(arguments, item.name) != item.default:
            raise ValueError(f"--{item.name.replace('_', '-')}: has no meaning with {kind}; leave it out")
    if arguments.judge is not None and arguments.annotations is None:
        raise ValueError("--annotations: missing; --judge needs the file that has the queries and their times")
    if arguments.seed is not None and arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed}: expected 0 or more")
    thresholds = arguments.thresholds
    if thresholds is not None and not (thresholds and all(0 < m <= 1 for m in thresholds)):
        raise ValueError(f"--thresholds {thresholds}: expected one or more values above 0, at most 1")


def _run_model(arguments: EvalArguments) -> int:
    """Evaluates a model, prints and writes the report."""
    from pps_fast.eval.report import format_table, write_predictions
    from pps_fast.pipeline import evaluate_checkpoint

    model = arguments.model or Path()
    out = _writable(arguments.out or model, arguments.predictions)
    refuse_input("--predictions", arguments.predictions, [arguments.data])
    changes = {
        "data.path": None if arguments.data is None else str(arguments.data),
        "data.fold": arguments.fold,
        "inference.seed": arguments.seed,
        "inference.precision": arguments.precision,
        "inference.selector": arguments.selector,
        "inference.iou_thresholds": arguments.thresholds,
    }
    evaluation = evaluate_checkpoint(
        model,
        changes,
        split=arguments.split,
        device=arguments.device,
        threads=arguments.threads,
        out=out,
        progress=True,
    )
    written = list(evaluation.written)
    if arguments.predictions is not None:
        form = arguments.predictions_form
        written.append(write_predictions(arguments.predictions, evaluation.report, evaluation.data, form))
    if evaluation.note is not None:
        print(f"note: {evaluation.note}", file=sys.stderr)
    print(format_table(evaluation.report, terminal_columns()))
    print(f"\nwritten: {', '.join(map(str, written))}")
    return 0


def _run_judge(arguments: EvalArguments, path: Path) -> int:
    """Scores files of answers, prints the table and, with --out, writes it."""
    from pps_fast.eval.answers import match_answers
    from pps_fast.eval.judge import judge
    from pps_fast.eval.judge_report import format_judgment, write_judgment
    from pps_fast.prepare.readers.answers import read_answers, read_queries
    from pps_fast.prepare.sources import describe_source

    annotations = arguments.annotations or Path()
    out = None if arguments.out is None else _writable(arguments.out, None)
    queries = read_queries(annotations, arguments.durations, arguments.protocol)
    paths = [path] if arguments.against is None else [path, arguments.against]
    names = [one.stem for one in paths]
    if len(set(names)) < len(names):
        names = [str(one) for one in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"--against {arguments.against}: is the file of --judge; name another")
    matched = [match_answers(name, queries, read_answers(one)) for name, one in zip(names, paths, strict=True)]
    judgment = judge(
        queries,
        matched,
        arguments.thresholds or _THRESHOLDS,
        is_clipped=arguments.clip,
        seed=arguments.seed or 0,
    )
    written: list[Path] = []
    if out is not None:
        sources: dict[str, Any] = {name: describe_source(one) for name, one in zip(names, paths, strict=True)}
        sources |= {"annotations": describe_source(annotations), "protocol": arguments.protocol}
        written = write_judgment(out, judgment, sources)
    print(f"{annotations.name}, protocol {arguments.protocol}.")
    print(format_judgment(judgment, terminal_columns()))
    if written:
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
    words = {word.partition("=")[0] for word in argv}
    is_printing_all = "--judge" in words and "--out" not in words
    return exit_status(lambda: run(parse(PROGRAM, argv)), is_printing_all=is_printing_all)


if __name__ == "__main__":
    sys.exit(main())
