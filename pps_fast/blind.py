"""python -m pps_fast.blind: what ignoring the video reaches on a data set, before any model is trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pps_fast import __version__
from pps_fast.cli import exit_status, parse
from pps_fast.config import DataConfig
from pps_fast.files import refuse_input, write_json
from pps_fast.help_text import Program
from pps_fast.text_table import plain_table, terminal_columns, wrapped

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pps_fast.data.record import PreparedSamples


@dataclass(frozen=True, kw_only=True)
class BlindArguments:
    """Options of the command."""

    data: Path | None = None
    """data file written by `python -m pps_fast.prepare`; default: the embedded synthetic data"""
    split: Literal["test", "validation", "train"] = "test"
    """which samples are scored; intervals are always fitted on the training samples"""
    fold: int | None = None
    """test on this fold and fit on the others, for a file prepared with --folds"""
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """values of m in R@n, IoU >= m"""
    # eval.metrics.MAX_RANK, without loading it
    ranked: int = 5
    """n of R@n: guesses of a baseline that has several"""
    draws: int = 200
    """repetitions of the random guesses"""
    seed: int = 0
    """seed of random guesses and bootstrap"""
    out: Path | None = None
    """also write the rows to this JSON file"""


# more would take hours and tell nothing
_LARGEST = {"ranked": 100, "draws": 100_000}

PROGRAM = Program(
    name="blind",
    description="""Scores guesses that see neither video nor sentence, on the test split of a data file: the whole
video, the best fixed interval, the best n fixed intervals (fitted on the training moments), and random guesses.

A model whose score does not beat these has shown no grounding; look here before you train one.""",
    options=BlindArguments,
    first=("data", "split", "fold", "thresholds", "ranked", "draws", "seed", "out"),
    examples="""python -m pps_fast.blind
python -m pps_fast.blind --data charades.h5
python -m pps_fast.blind --data activitynet.h5 --thresholds 0.1 0.3 0.5 --out blind_activitynet.json""",
)


def run(arguments: BlindArguments) -> dict[str, Any]:
    """Returns the rows with 95 % bootstrap intervals by video, and what they were computed on.

    Raises:
        ValueError: for data or options that cannot be used.
    """
    import numpy as np
    import torch

    from pps_fast.data.load import load_samples
    from pps_fast.data.splits import select_samples

    _check(arguments)
    options = DataConfig(path=None if arguments.data is None else str(arguments.data), fold=arguments.fold)
    data = load_samples(options)
    splits = select_samples(data, options, is_for_training=False)
    samples = getattr(splits, arguments.split)
    if len(samples) == 0:
        raise ValueError(f"--split {arguments.split}: the data set has no such samples; choose another, or a --fold")
    scored, fitted_on = (chosen[data.num_windows[chosen] > 0] for chosen in (samples, splits.train))
    if len(scored) == 0:
        raise ValueError(f"--split {arguments.split}: no such sample has times; guesses need times to be scored")
    rows, intervals = _rows(arguments, data, fitted_on, scored)
    return {
        "name": str(data.provenance.get("name", "not recorded")),
        "protocol": str(data.provenance.get("protocol", "not recorded")),
        "split": arguments.split,
        "fold": arguments.fold,
        "num_samples": len(scored),
        "num_videos": len(np.unique(data.sample_video[scored])),
        "num_unscored": len(samples) - len(scored),
        "num_fit_samples": len(fitted_on),
        "unit": "percent; low and high bound the 95 % bootstrap interval by video",
        "random": f"start and end two uniform draws, sorted; n independent guesses; {arguments.draws} repetitions",
        "seed": arguments.seed,
        "rows": rows,
        "intervals": intervals,
        "provenance": data.provenance,
        "versions": {"pps_fast": __version__, "torch": str(torch.__version__)},
    }


def _check(arguments: BlindArguments) -> None:
    if not all(0 < m <= 1 for m in arguments.thresholds) or not arguments.thresholds:
        raise ValueError(f"--thresholds {arguments.thresholds}: expected one or more values above 0, at most 1")
    for name, most in _LARGEST.items():
        if not 1 <= getattr(arguments, name) <= most:
            raise ValueError(f"--{name} {getattr(arguments, name)}: expected 1 to {most:,}")
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed {arguments.seed}: expected 0 to below 2 ** 63")
    if arguments.out is not None and (arguments.out.is_dir() or not arguments.out.parent.is_dir()):
        raise ValueError(f"--out {arguments.out}: expected a file in a folder that exists")
    refuse_input("--out", arguments.out, [arguments.data])


def _rows(
    arguments: BlindArguments, data: PreparedSamples, fitted_on: np.ndarray, samples: np.ndarray
) -> tuple[dict[str, Any], dict[str, list[list[float]]]]:
    """Returns row -> metric -> estimate, and row -> its intervals where they are the same for every sample."""
    import torch

    from pps_fast.eval.blind import RANDOM, blind_table, cross_fit_baselines, fit_blind_baselines, random_table
    from pps_fast.eval.bootstrap import VideoBootstrap
    from pps_fast.eval.metrics import sample_values

    thresholds, truth = arguments.thresholds, torch.from_numpy(data.truth(samples))
    video = torch.from_numpy(data.sample_video[samples])
    bootstrap = VideoBootstrap(video, num_resamples=1000, seed=arguments.seed)
    if len(fitted_on):
        fitted = fit_blind_baselines(torch.from_numpy(data.truth(fitted_on)), thresholds, arguments.ranked)
    else:
        fitted = cross_fit_baselines(truth, video, thresholds, arguments.ranked)
    values = {name: sample_values(blind_table(guesses, truth), thresholds) for name, guesses in fitted.items()}
    tables = random_table(truth, arguments.ranked, num_draws=arguments.draws, seed=arguments.seed)
    values[RANDOM] = _mean([sample_values(table, thresholds) for table in tables])
    rows = {
        name: {metric: asdict(bootstrap.estimate(column)) for metric, column in columns.items()}
        for name, columns in values.items()
    }
    return rows, {name: guesses.tolist() for name, guesses in fitted.items() if guesses.ndim == 2}


def _mean(draws: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Returns metric -> [B] mean over repetitions."""
    import torch

    return {metric: torch.stack([draw[metric] for draw in draws]).mean(0) for metric in draws[0]}


def format_rows(record: dict[str, Any], columns: int | None = None) -> str:
    """Returns the rows of `run`'s record as tables of plain text, one per n of R@n.

    Args:
        columns: most characters of a line; None is no limit.
    """
    from pps_fast.eval.blind import NUM_FOLDS
    from pps_fast.eval.bootstrap import Estimate
    from pps_fast.eval.report import FEW_VIDEOS, cell, few_videos

    fit = f"intervals fitted on {record['num_fit_samples']} training pairs"
    if not record["num_fit_samples"]:
        fit = f"no training pair has times: intervals fitted on the scored pairs of other videos ({NUM_FOLDS} folds)"
    sentence = (
        f"{record['name']}, protocol {record['protocol']}, {record['split']} split: {record['num_samples']} pairs, "
        f"{record['num_videos']} videos; {fit}"
    )
    if record["num_unscored"]:
        sentence += f"; {record['num_unscored']} pairs without times are not scored"
    if record["num_videos"] < FEW_VIDEOS:
        sentence += f". {few_videos(record['num_videos'])}"
    lines = [wrapped(sentence, columns)]
    metrics = list(dict.fromkeys(metric for estimates in record["rows"].values() for metric in estimates))
    for family in dict.fromkeys(metric.split()[0] for metric in metrics):
        members = [metric for metric in metrics if metric.split()[0] == family]
        rows = [[f"{family}, %", *(metric.split(maxsplit=1)[1] for metric in members)]]
        for name, estimates in record["rows"].items():
            if members[0] in estimates:
                rows.append([name, *(cell(Estimate(**estimates[metric])) for metric in members)])
        lines += ["", *plain_table(rows, columns)]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def program() -> int:
        arguments = parse(PROGRAM, argv)
        record = run(arguments)
        if arguments.out is not None:
            write_json(arguments.out, record)
        print(format_rows(record, terminal_columns()))
        if arguments.out is not None:
            print(f"\nwritten: {arguments.out}")
        return 0

    has_file = any(word.partition("=")[0] == "--out" for word in argv)
    return exit_status(program, is_printing_all=not has_file)


if __name__ == "__main__":
    sys.exit(main())
