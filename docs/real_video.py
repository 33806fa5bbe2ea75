"""The tables of docs/results.md on real video: comparisons in benchmarks/results/lab/, and how sure answers are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pps_fast.lab.report import cell, grid

LAB = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "lab"
# features and protocol -> comparison on folds 2 to 4
COMPARISONS = {
    "ViT-B/32, full": "compare_alignment_vitb32",
    "ViT-L/14, full": "compare_alignment_vitl14",
    "ViT-L/14 and MiniLM's vectors of sentences, full": "compare_alignment_vitl14_minilm",
    "ViT-B/32, filtered": "compare_alignment_vitb32_filtered",
    "ViT-L/14, filtered": "compare_alignment_vitl14_filtered",
}
# PPS as published, on fold 0 alone
PUBLISHED_METHODS = "compare_charades_clip_small"
VIDEO_GAIN = LAB.parent / "video_gain_cpu_20261126.jsonl"
LABELS = {
    "alignment": "alignment, default",
    "alignment_priors": "alignment, standardized curve and priors",
    "alignment_changes": "alignment, ... and changes of frames",
    "charades_clip_align_small": "PPS with alignment (generator, no reconstruction), width 64",
    "charades_clip_small": "PPS as published, width 64, 6 epochs, **fold 0 alone**",
}
# made-up queries of two events, by `python -m benchmarks.compound`
COMPOUND = LAB.parent / "compound_cpu_20261126.jsonl"
# answers of alignments, by `python -m benchmarks.grounding`
GROUNDING = LAB.parent / "grounding_cpu_20261125.json"
FEATURES = {"b32": "ViT-B/32", "l14": "ViT-L/14"}
_METRICS = ("R@1 IoU>=0.3", "R@1 IoU>=0.5", "R@1 IoU>=0.7", "R@1 mIoU")


def real_video() -> list[str]:
    """Returns the table, from blind guesses to people, for every feature set and protocol."""
    lines = []
    for title, name in COMPARISONS.items():
        record = _read(name)
        size = record["subsets"]["all"]
        lines += [
            f"**{title}**: folds 2 to 4, {size['pairs']:,} pairs of {size['videos']:,} videos "
            f"([{name}](../benchmarks/results/lab/{name}.md)).",
            "",
            *grid(["R@1", *(metric.removeprefix("R@1 ") for metric in _METRICS)], _rows(record)),
        ]
    published = _read(PUBLISHED_METHODS)
    (row,) = [row for row in published["rows"] if row["label"] == "charades_clip_small"]
    rows = [
        ["best blind baseline", *_cells(published["blind"]["all"])],
        [LABELS["charades_clip_small"], *_cells(row["results"]["all"])],
        ["... asked shuffled queries", *_cells(row["shuffled"]["all"])],
    ]
    people = {label: estimates for label, estimates in published["human"].items() if _METRICS[-1] in estimates}
    rows += [[f"{label}, re-annotated pairs", *_cells(estimates)] for label, estimates in people.items()]
    size = published["subsets"]["all"]
    where = f"**ViT-B/32, full**, fold 0: {size['pairs']:,} pairs"
    lines += [f"{where} ([{PUBLISHED_METHODS}](../benchmarks/results/lab/{PUBLISHED_METHODS}.md)).", ""]
    return [*lines, *grid(["R@1", *(metric.removeprefix("R@1 ") for metric in _METRICS)], rows), *_video_gain()]


def _video_gain() -> list[str]:
    """Returns the table of what the video tells models while they are trained."""
    records = [json.loads(line) for line in VIDEO_GAIN.read_text(encoding="utf-8").splitlines()]
    first = records[0]
    lines = [
        f"**What the video tells** a model in training (`video_gain`): {first['features']}, fold {first['fold']}, "
        f"{first['num_pairs']} pairs of as many {first['split']} videos, one run each "
        f"([{VIDEO_GAIN.stem}](../benchmarks/results/{VIDEO_GAIN.name})).",
        "",
    ]
    rows = []
    for record in records:
        for name in ("nats", "reward"):
            if name in record:
                cells = zip(record[name], record[f"{name}_error"], strict=True)
                texts = [f"{mean:.3f} +- {error:.3f}" for mean, error in cells]
                # a run may have been stopped earlier than the first
                texts += [""] * (len(first["epochs"]) - len(texts))
                rows.append([f"{record['label']}, {name}", *texts])
    return [*lines, *grid(["after epoch", *(str(epoch) for epoch in first["epochs"])], rows)]


def two_events() -> list[str]:
    """Returns how much of compound queries each kind of answer covers, on every data set."""
    records = [json.loads(line) for line in COMPOUND.read_text(encoding="utf-8").splitlines()]
    data = list(dict.fromkeys(record["data"] for record in records))
    cells = {(record["data"], record["answer"]): _compound_cell(record) for record in records}
    first = {name: next(record for record in records if record["data"] == name) for name in data}
    header = [f"{FEATURES.get(name, name)}, {first[name]['queries']:,} queries" for name in data]
    answers = dict.fromkeys(record["answer"] for record in records)
    return grid(
        ["answer", *header], [[answer, *(cells.get((name, answer), "-") for name in data)] for answer in answers]
    )


def _compound_cell(record: dict[str, Any]) -> str:
    """Returns an overlap with its interval, and behind it the difference to one Gaussian of the same kind."""
    value, low, high = record["overlap"]
    text = f"{value:.1f} [{low:.1f}, {high:.1f}]"
    if "less_one_gaussian" not in record:
        return text
    value, low, high = record["less_one_gaussian"]
    return f"{text}, {value:+.1f} [{low:+.1f}, {high:+.1f}]"


def sureness() -> list[str]:
    """Returns how reliable match is on each fold, and match beside frequency by tenths, all folds together."""
    record: dict[str, Any] = json.loads(GROUNDING.read_text(encoding="utf-8"))
    header = ["fold", "AUC", "mean error", "as the model says", "right video first", "in first ten", "of"]
    rows = [
        [
            f"{FEATURES[row['data']]}, {row['fold']}",
            f"{row['auc']:.3f}",
            f"{row['calibration_error']:.3f}",
            f"{row['record_of_the_model']['calibration_error']:.3f}",
            f"{row['percent_first']:.1f} %",
            f"{row['percent_in_first_ten']:.1f} %",
            f"{row['videos']:,} videos",
        ]
        for row in record["rows"]
    ]
    return [*grid(header, rows), *grid(["match", *FEATURES.values()], _by_tenths(record["rows"]))]


def _by_tenths(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Returns the mean match and the share of right videos in each tenth of match, all folds together."""
    lines = []
    for low in range(10):
        cells = []
        for name in FEATURES:
            tenths = [
                (match, share, weight)
                for row in rows
                if row["data"] == name
                for match, share, weight in row["reliability"]
                if low <= 10 * match < low + 1
            ]
            total = sum(weight for *_, weight in tenths)
            means = [sum(tenth[index] * tenth[2] for tenth in tenths) / total for index in (0, 1)] if total else []
            cells.append("{:.2f}: {:.2f} right".format(*means) if total else "-")
        lines.append([f"{low / 10:.1f} to {(low + 1) / 10:.1f}", *cells])
    return lines


def _read(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((LAB / f"{name}.json").read_text(encoding="utf-8"))
    return record


def _cells(estimates: dict[str, Any]) -> list[str]:
    return [cell(estimates.get(metric)) for metric in _METRICS]


def _rows(record: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of one comparison, by rising mIoU from blind guesses."""
    (reference,) = [row for row in record["rows"] if row["label"] == record["reference"]]
    rows = [
        ["best blind baseline, fitted with times", *_cells(record["blind"]["all"])],
        [f"{LABELS[record['reference']]}, shuffled queries", *_cells(reference["shuffled"]["all"])],
    ]
    models = sorted(record["rows"], key=lambda row: row["results"]["all"][_METRICS[-1]]["value"])
    return rows + [[LABELS[row["label"]], *_cells(row["results"]["all"])] for row in models]
