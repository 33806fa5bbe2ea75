"""Writes an evaluation as a plain table, Markdown and JSON, and its predictions as JSON Lines.

Letters: C cross-entropy of the sentence reconstructed under a proposal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pps_fast import __version__
from pps_fast.config import PPSConfig
from pps_fast.config_tree import to_dict
from pps_fast.data.identity import describe_data
from pps_fast.data.prepared import PreparedData
from pps_fast.eval.answers import PredictionsForm, in_form
from pps_fast.eval.blind import NUM_FOLDS
from pps_fast.eval.bootstrap import Estimate
from pps_fast.eval.results import MODEL, Comparison, EvalReport
from pps_fast.files import replace_text, write_json
from pps_fast.runs.environment import environment
from pps_fast.text_table import markdown_table, plain_table, wrapped
from pps_fast.types import Prediction

_ABSENT = "-"
FEW_VIDEOS = 10
"""with fewer, resampling the videos tells next to nothing about others"""


def cell(estimate: Estimate | None, sign: str = "") -> str:
    """Returns "value [low, high]", "-" for None."""
    if estimate is None:
        return _ABSENT
    return f"{estimate.value:{sign}.2f} [{estimate.low:{sign}.1f}, {estimate.high:{sign}.1f}]"


def blocks_of(
    rows: dict[str, dict[str, Estimate]], first: str, comparisons: dict[str, dict[str, Comparison]]
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns a table for each family of metrics, such as R@1: its name, its metrics, and a header with rows.

    Args:
        rows: name -> metric, "R@1 mIoU" -> estimate.
        first: the row whose metrics are shown, and that is compared.
        comparisons: name of a last row -> metric -> `first` against something.
    """
    families: dict[str, list[str]] = {}
    for metric in rows.get(first, ()):
        families.setdefault(metric.split()[0], []).append(metric)
    blocks = []
    for family, metrics in families.items():
        table = [[f"{family}, % [95 %]", *(metric.split(maxsplit=1)[1] for metric in metrics)]]
        for name, estimates in rows.items():
            if any(metric in estimates for metric in metrics):
                table.append([name, *(cell(estimates.get(metric)) for metric in metrics)])
        for name, compared in comparisons.items():
            if any(metric in compared for metric in metrics):
                differences = [compared[metric].difference if metric in compared else None for metric in metrics]
                table.append([name, *(cell(difference, "+") for difference in differences)])
        blocks.append((family, metrics, table))
    return blocks


def _blocks(report: EvalReport) -> list[tuple[list[list[str]], str]]:
    """Returns one table per n of R@n, a header and the rows that have its metrics, with a sentence or "" about it."""
    compared = {
        "model - best blind baseline": report.best_blind,
        "model - best alignment": report.best_alignment,
        "model - shuffled queries": report.control,
    }
    blocks = blocks_of(report.rows, MODEL, compared)
    return [(table, _meaning(report, family, metrics)) for family, metrics, table in blocks]


def _meaning(report: EvalReport, family: str, metrics: list[str]) -> str:
    """Returns a sentence about R@n, n > 1, where shuffled queries score like the true ones; else ""."""
    if family == "R@1" or not report.control:
        return ""
    differences = [report.control[metric].difference for metric in metrics]
    if all(one.value == one.low == one.high == 0 for one in differences):
        return (
            f"{family} is the same with shuffled queries: its moments do not depend on the query, so it shows "
            f"how much of a video the K = {report.num_proposals} proposals cover, not grounding."
        )
    if all(one.low <= 0 <= one.high for one in differences):
        return (
            f"{family} is not distinguishable from that with shuffled queries: it may show how much of a video the "
            f"K = {report.num_proposals} proposals cover rather than grounding."
        )
    return ""


def _summary(report: EvalReport) -> list[str]:
    """Returns the sentences above and below the table."""
    lines = [
        f"{report.name}, protocol {report.protocol}, {report.split} split: "
        f"{report.num_samples} pairs, {report.num_videos} videos.",
        f"Selector {report.selector}, K = {report.num_proposals}, seed {report.seed}; "
        f"95 % intervals of {report.num_bootstrap} resamplings of the videos.",
    ]
    if report.rows and report.num_videos < FEW_VIDEOS:
        lines.append(few_videos(report.num_videos))
    if report.rows:
        lines.append(_fit(report))
    if report.num_unscored:
        lines.append(f"{report.num_unscored} pairs of the split have no times: they were answered and not scored.")
    if report.rows and not report.control:
        lines.append("No shuffled-query control: the split has a single video.")
    return lines


def few_videos(num_videos: int) -> str:
    """Returns the sentence that stands with the intervals of fewer than FEW_VIDEOS videos."""
    return f"The intervals mean nothing: {num_videos} videos are too few to resample; take {FEW_VIDEOS} at least."


def _fit(report: EvalReport) -> str:
    """Returns the sentence on what the blind baselines were fitted on."""
    what = "Blind baselines see neither video nor query;"
    if report.num_fit_samples:
        return f"{what} they are fitted on {report.num_fit_samples} training pairs."
    return (
        f"{what} no training pair has times, so they are fitted on the scored pairs of the other videos "
        f"({NUM_FOLDS} folds by video)."
    )


def _conclusions(report: EvalReport) -> list[str]:
    lines = [report.headline]
    if report.best_alignment:
        metric, compared = next((m, c) for m, c in report.best_alignment.items() if m.endswith("mIoU"))
        value = report.rows[compared.row][metric].value
        lines.append(
            f"{metric}: against '{compared.row}' ({value:.2f}), fitted in closed form to the same training pairs, the "
            f"model is {compared.verdict}."
        )
    if report.control:
        metric, compared = next((m, c) for m, c in report.control.items() if m.endswith("mIoU"))
        lines.append(f"{metric}: against its own answers to shuffled queries the model is {compared.verdict}.")
    return [*lines, *([report.verdict] if report.verdict is not None else [])]


def format_table(report: EvalReport, columns: int | None = None) -> str:
    """Returns the report as plain text.

    Args:
        columns: most characters of a line, see `text_table.plain_table`; None is no limit.
    """
    lines = [*(wrapped(line, columns) for line in _summary(report)), ""]
    for rows, meaning in _blocks(report):
        lines += plain_table(rows, columns)
        lines += [wrapped(meaning, columns), ""] if meaning else [""]
    return "\n".join([*lines, *(wrapped(line, columns) for line in _conclusions(report))])


def format_run(report: EvalReport | None, written: Sequence[Path], model_dir: Path, columns: int | None = None) -> str:
    """Returns what a program says of a finished run: the table, the files, the model.

    Args:
        report: None where the data have no test split.
        written: files of the report.
        model_dir: of the model to use.
        columns: as in `format_table`.
    """
    if report is None:
        remedy = "if folds were prepared, choose one with --data.fold"
        return f"the data have no test split, so that nothing was evaluated; {remedy}\nmodel: {model_dir}"
    return f"{format_table(report, columns)}\n\nwritten: {', '.join(map(str, written))}\nmodel: {model_dir}"


def format_markdown(report: EvalReport) -> str:
    """Returns the report as Markdown, tables included."""
    lines = [f"# Evaluation: {report.name}, {report.protocol}, {report.split}", "", *_summary(report), ""]
    for rows, meaning in _blocks(report):
        lines += [*markdown_table(rows), ""]
        lines += [meaning, ""] if meaning else []
    lines.extend(f"* {line}" for line in _conclusions(report))
    lines.append("* Fixed intervals, as fractions of the video's length:")
    lines.extend(f"  * {name}: {_show_intervals(intervals)}" for name, intervals in report.intervals.items())
    return "\n".join(lines) + "\n"


def _show_intervals(intervals: list[list[float]]) -> str:
    return ", ".join(f"[{start:.2f}, {end:.2f}]" for start, end in intervals)


def write_report(directory: str | Path, report: EvalReport, config: PPSConfig, data: PreparedData) -> list[Path]:
    """Writes evaluation_SPLIT.json, evaluation_SPLIT.md and predictions_SPLIT.jsonl, each whole or not at all.

    The JSON also carries what is needed to repeat the evaluation: the config, the data set's provenance and
    identity, versions, commit, CPU, its threads and the device.

    Returns:
        the three paths; the directory is made if need be.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        **report.to_dict(),
        "config": to_dict(config),
        "provenance": data.provenance,
        "data": describe_data(data),
        "versions": {"pps_fast": __version__, "torch": str(torch.__version__)},
        "environment": {**environment(), "device": report.answers.device},
    }
    paths = [directory / f"evaluation_{report.split}.json", directory / f"evaluation_{report.split}.md"]
    write_json(paths[0], record)
    replace_text(paths[1], format_markdown(report))
    return [*paths, write_predictions(directory / f"predictions_{report.split}.jsonl", report, data)]


def write_predictions(path: str | Path, report: EvalReport, data: PreparedData, form: PredictionsForm = "full") -> Path:
    """Writes one JSON line per sample, in QVHighlights' submission form and with what pairs and scores it.

    The other forms are those of `answers.in_form`.

    qid                     name or number of the query as annotated; where it has none, the sample's index
    query, vid              sentence, name of the video
    pred_relevant_windows   [[start_s, end_s, score], ...]: the answer, then the other moments by falling score, which
                            is -C; the answer's is below that of another moment where a vote chose it
    duration_s              length of the video
    moment_s, windows_s     annotated start and end of the first window, and of all; null and [] without times
    iou                     of the answer with the window it meets best, as the metrics count it; null without times
    """
    answers, counts = report.answers, data.num_windows
    ends = np.cumsum(counts)
    overlaps = report.tables[MODEL].iou_top1 if report.tables else torch.zeros(0)
    if overlaps is None:
        raise ValueError("write_predictions: the report has no answers of the model")
    overlap_of = dict(zip(answers.samples[answers.is_scored].tolist(), overlaps.tolist(), strict=True))
    lines = []
    for position, sample in enumerate(answers.samples.tolist()):
        video = int(data.sample_video[sample])
        query_id = None if data.query_id is None else data.query_id[sample]
        windows = data.window_s[ends[sample] - counts[sample] : ends[sample]].tolist()
        line = {
            "qid": sample if query_id is None else query_id,
            "query": data.sentences[sample],
            "vid": data.video_ids[video],
            "pred_relevant_windows": _windows(answers.prediction, position, float(data.duration_s[video])),
            "duration_s": float(data.duration_s[video]),
            "moment_s": windows[0] if windows else None,
            "windows_s": windows,
            "iou": overlap_of.get(sample),
        }
        lines.append(json.dumps(in_form(line, form)) + "\n")
    path = Path(path)
    replace_text(path, "".join(lines))
    return path


def _windows(prediction: Prediction, position: int, duration_s: float) -> list[list[float]]:
    """Returns [start_s, end_s, -C] of a sample's moments, its answer first, the others by rising C."""
    spans, answer = prediction.spans[position], prediction.top1[position]
    # the answer is one of the moments
    first = int((spans == answer).all(-1).int().argmax())
    order = [first, *(rank for rank in range(len(spans)) if rank != first)]
    seconds, losses = (spans.double() * duration_s).tolist(), prediction.nll[position].tolist()
    return [[*seconds[rank], -losses[rank]] for rank in order]
