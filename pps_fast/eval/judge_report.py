"""Writes a judgment of other people's answers as a plain table, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pps_fast import __version__
from pps_fast.eval.answers import MAX_WINDOWS
from pps_fast.eval.blind import NUM_FOLDS
from pps_fast.eval.bootstrap import Estimate
from pps_fast.eval.judge import LENGTHS, Judgment
from pps_fast.eval.report import blocks_of, cell
from pps_fast.eval.results import Comparison
from pps_fast.files import replace_text, write_json
from pps_fast.text_table import markdown_table, plain_table, wrapped

NAME = "judgment"
"""of the files, without their endings"""


def _notes(judgment: Judgment) -> Iterator[str]:
    """Yields the sentences above the tables."""
    scored = f"{judgment.num_queries:,} queries with {judgment.num_windows:,} windows, {judgment.num_videos:,} videos"
    unscored = f"; {judgment.num_unscored:,} others have no times that count" if judgment.num_unscored else ""
    yield f"{scored}{unscored}. Annotated windows are clipped to the video."
    outside = ", ".join(f"{count:,} of {name}" for name, count in judgment.num_outside.items())
    what = "and are clipped to it" if judgment.is_clipped else "and are scored as they are, not clipped (--clip clips)"
    yield f"Answers that reach beyond their video {what}: {outside}."
    for one in judgment.files:
        missing = judgment.num_missing[one.name]
        if missing:
            yield f"{one.name}: {missing:,} queries have no answer and count as missed."
        ends = [end for answer in one.answers if answer is not None for _, end in answer.windows]
        if ends and max(ends) <= 1:
            yield f"{one.name}: no window ends after 1 second. Times are seconds; are these fractions of the video?"
        if one.num_unused:
            yield f"{one.name}: {one.num_unused:,} lines answer no scored query."
    yield (
        f"R@1 scores the answer, R@n and mAP the first {MAX_WINDOWS} windows by their scores. mAP is QVHighlights': "
        "the mean over queries, and over IoU 0.5 to 0.95, of the average precision."
    )
    yield (
        "Blind baselines see neither video nor query; they are fitted on the scored queries of the other videos "
        f"({NUM_FOLDS} folds by video)."
    )
    yield (
        f"95 % intervals of {judgment.num_bootstrap} resamplings of the videos, seed {judgment.seed}. No shuffled-"
        "query control: only the model itself can answer other queries."
    )


def _tables(judgment: Judgment) -> Iterator[list[list[str]]]:
    """Yields each table as a header and rows."""
    first = judgment.files[0].name
    compared = {f"{first} - best blind baseline": judgment.best_blind}
    compared |= {f"{first} - {other}": one for other, one in judgment.paired.items()}
    for _, _, table in blocks_of(judgment.rows, first, compared):
        yield table
    shown = [name for name in LENGTHS if judgment.num_by_length[name]]
    header = ["mAP by length of window, % [95 %]", *(f"{name} ({judgment.num_by_length[name]:,})" for name in shown)]
    rows = [[row, *(cell(estimates[name]) for name in shown)] for row, estimates in judgment.by_length.items()]
    yield [header, *rows]


def _conclusions(judgment: Judgment) -> Iterator[str]:
    yield judgment.headline
    first = judgment.files[0].name
    for other, compared in judgment.paired.items():
        metric = next(name for name in compared if name.endswith("mIoU"))
        yield f"{metric}: against {other}, {first} is {compared[metric].verdict}."


def format_judgment(judgment: Judgment, columns: int | None = None) -> str:
    """Returns the judgment as plain text; `columns` as in `text_table.plain_table`."""
    lines = [*(wrapped(line, columns) for line in _notes(judgment)), ""]
    for table in _tables(judgment):
        lines += [*plain_table(table, columns), ""]
    return "\n".join([*lines, *(wrapped(line, columns) for line in _conclusions(judgment))])


def write_judgment(folder: Path, judgment: Judgment, sources: dict[str, Any]) -> list[Path]:
    """Writes judgment.json and judgment.md, each whole or not at all, and returns their paths.

    Args:
        folder: made if need be.
        sources: names and sha256 of the files that were read, and the options.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{NAME}.json", folder / f"{NAME}.md"]
    versions = {"pps_fast": __version__, "torch": str(torch.__version__)}
    write_json(paths[0], {**_record(judgment), "sources": sources, "versions": versions})
    lines = ["# Answers judged", ""]
    for note in _notes(judgment):
        lines += [note, ""]
    for table in _tables(judgment):
        lines += [*markdown_table(table), ""]
    replace_text(paths[1], "\n".join([*lines, *(f"* {line}" for line in _conclusions(judgment))]) + "\n")
    return paths


def _record(judgment: Judgment) -> dict[str, Any]:
    """Returns the judgment as JSON-able dicts, without the answers."""
    names = ("num_queries", "num_windows", "num_videos", "num_unscored", "num_missing", "num_outside", "is_clipped")
    plain: dict[str, Any] = {name: getattr(judgment, name) for name in (*names, "num_ranked", "seed", "num_bootstrap")}
    plain["num_unused"] = {one.name: one.num_unused for one in judgment.files}
    plain |= {"headline": judgment.headline, "num_by_length": judgment.num_by_length}
    plain["unit"] = "percent; low and high bound the 95 % bootstrap interval by video"
    plain["rows"] = {row: _estimates(estimates) for row, estimates in judgment.rows.items()}
    plain["by_length"] = {row: _estimates(estimates) for row, estimates in judgment.by_length.items()}
    plain["best_blind"] = _comparisons(judgment.best_blind)
    plain["paired"] = {other: _comparisons(compared) for other, compared in judgment.paired.items()}
    return plain


def _estimates(estimates: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {metric: asdict(estimate) for metric, estimate in estimates.items()}


def _comparisons(compared: dict[str, Comparison]) -> dict[str, Any]:
    return {metric: {**asdict(one), "verdict": one.verdict} for metric, one in compared.items()}
