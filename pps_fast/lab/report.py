"""A table's record as Markdown and as CSV; both are made from the record alone."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pps_fast.eval.bootstrap import Estimate
from pps_fast.eval.report import cell as estimate_cell
from pps_fast.eval.results import HEADLINE
from pps_fast.files import replace_text, write_json
from pps_fast.lab.statistics import t_quantile
from pps_fast.lab.tables import ALL, REANNOTATED
from pps_fast.text_table import markdown_table, plain_table, wrapped

_ABSENT = "-"
CSV_COLUMNS = ("subset", "row", "metric", "quantity", "value", "runs", "interval", "low", "high", "videos_low",
               "videos_high")  # fmt: skip
_QUANTITIES = ("results", "difference", "against_blind", "shuffled", "against_shuffled")


def interval_of(summary: dict[str, Any]) -> tuple[float, float]:
    """Returns the interval that tables show: over runs where there are several, else over videos."""
    return tuple(summary["over_runs"] or summary["over_videos"])


def cell(summary: dict[str, Any] | None, sign: str = "") -> str:
    """Returns a mean with the interval of `interval_of`; "-" for None."""
    if summary is None:
        return _ABSENT
    low, high = interval_of(summary)
    return estimate_cell(Estimate(value=summary["value"], low=low, high=high), sign)


def difference_cell(summary: dict[str, Any] | None) -> str:
    """Returns the difference between two trained rows; "-" for None.

    For single runs it has no interval, because that over videos would leave out the spread of seeds.
    """
    if summary is not None and summary["over_runs"] is None:
        return f"{summary['value']:+.2f} (one run)"
    return cell(summary, "+")


def spread_sentence(record: dict[str, Any]) -> str:
    """Returns what is known of how far two runs of one row lie apart; records may lack the field `spread`."""
    spread = record.get("spread", {}).get(ALL, {}).get(HEADLINE)
    if spread is None:
        return (
            "How far apart two seeds of a row are was not measured here (one run a row and fold), so that no rows are "
            "called different."
        )
    chance = t_quantile(spread["degrees"]) * math.sqrt(2) * spread["value"]
    return (
        f"One run's {HEADLINE} has a standard deviation of {spread['value']:.2f} points over seeds and their rounding "
        f"({spread['degrees']} degrees of freedom): two runs of one row lie more than {chance:.1f} apart 1 time in 20."
    )


def grid(header: list[str], rows: list[list[str]]) -> list[str]:
    """Returns a Markdown table whose columns after the first are numbers, and an empty line."""
    return [*markdown_table([header, *rows]), ""]


def _families(record: dict[str, Any], subset: str) -> dict[str, list[str]]:
    """Returns "R@n" -> its metrics, for every n that a row or people have."""
    known = [row["results"][subset] for row in record["rows"]]
    known += record["human"].values() if subset == REANNOTATED else []
    families: dict[str, list[str]] = {}
    for metric in dict.fromkeys(metric for metrics in known for metric in metrics):
        families.setdefault(metric.split()[0], []).append(metric)
    # thresholds first, the mean last, also where rows have different thresholds
    return {family: sorted(metrics, key=lambda m: ("mIoU" in m, m)) for family, metrics in sorted(families.items())}


def _short(metrics: list[str]) -> list[str]:
    return [metric.split(maxsplit=1)[1] for metric in metrics]


def _results(record: dict[str, Any], subset: str, family: str, metrics: list[str]) -> list[str]:
    rows = [
        [row["label"], str(len(row["runs"])), *(cell(row["results"][subset].get(metric)) for metric in metrics)]
        for row in record["rows"]
        if not metrics or any(metric in row["results"][subset] for metric in metrics) or not row["runs"]
    ]
    (reference,) = [row for row in record["rows"] if row["label"] == record["reference"]]
    blind = record["blind"][subset]
    rows.append(["best blind baseline", "", *(cell(blind.get(metric)) for metric in metrics)])
    shuffled = reference["shuffled"][subset]
    name = f"{record['reference']}, shuffled queries"
    rows.append([name, str(len(reference["runs"])), *(cell(shuffled.get(metric)) for metric in metrics)])
    if subset == REANNOTATED:
        for person, summaries in record["human"].items():
            if any(metric in summaries for metric in metrics):
                rows.append([person, "", *(cell(summaries.get(metric)) for metric in metrics)])
    return grid([f"{family}, %", "runs", *_short(metrics)], rows)


def _differences(record: dict[str, Any], subset: str, family: str, metrics: list[str]) -> list[str]:
    mean = f"{family} mIoU"
    rows = [
        [
            row["label"],
            *(difference_cell(row["difference"][subset].get(metric)) for metric in metrics),
            *(cell(row[part][subset].get(mean), "+") for part in ("against_blind", "against_shuffled")),
        ]
        for row in record["rows"]
        if any(metric in row["results"][subset] for metric in metrics)
    ]
    header = [f"{family}, minus '{record['reference']}'", *_short(metrics), "mIoU - blind", "mIoU - shuffled"]
    return grid(header, rows)


def _paper(record: dict[str, Any]) -> list[str]:
    metrics = list(dict.fromkeys(metric for row in record["rows"] for metric in row["paper"]))
    if not metrics:
        return []
    rows = [[row["label"], *(f"{row['paper'][m]:.2f}" if m in row["paper"] else _ABSENT for m in metrics)]
            for row in record["rows"] if row["paper"]]  # fmt: skip
    return [f"## Published figures: {record['paper_source']}", "", *grid(["%", *metrics], rows)]


def _preamble(record: dict[str, Any]) -> Iterator[str]:
    protocol, origin, data = record["protocol"], record["made"], record["data"]
    folds = ["the data set's own split" if fold is None else f"fold {fold}" for fold in protocol["folds"]]
    changes = ", ".join(f"{path} = {value}" for path, value in record["overrides"].items()) or "none"
    yield f"# {record['name']}: {record['title']}"
    yield ""
    if record["note"]:
        yield record["note"]
        yield ""
    yield f"* Data: {data['name']}, protocol {data.get('protocol', 'not recorded')}, sha256 {data['sha256'][:12]}."
    yield f"* Preset {record['preset']}, changed in all rows: {changes}. Selector {protocol['selector']}."
    yield f"* Seeds {', '.join(map(str, protocol['seeds']))}; tested on {', '.join(folds)}."
    yield f"* {record['intervals']} Shown is 'over runs' where there are several; both stand in {record['name']}.json."
    yield f"* {spread_sentence(record)} Another CPU or another number of threads counts as another seed."
    yield f"* Best blind baseline: {protocol['blind']}; it sees neither video nor query."
    seconds = sum(run["train_s"] for row in record["rows"] for run in row["runs"])
    yield f"* Made on {'; '.join(origin['machine'])} with torch {', '.join(origin['torch'])} at commit "\
          f"{', '.join(origin['commit'])}; the rows' runs trained for {seconds / 60:.1f} min in all."  # fmt: skip
    missing = {row["label"]: row["missing"] for row in record["rows"] if row["missing"]}
    for label, seed_folds in missing.items():
        text = ", ".join(f"seed {seed}" + ("" if fold is None else f" fold {fold}") for seed, fold in seed_folds)
        yield f"* NOT COMPLETE: '{label}' lacks {text}."
    yield ""


def format_markdown(record: dict[str, Any]) -> str:
    """Returns the table as Markdown: one part per subset of samples and n of R@n, published figures apart."""
    lines = list(_preamble(record))
    for subset, size in record["subsets"].items():
        name = "All samples" if subset == ALL else f"Samples: {subset}"
        lines += [f"## {name} ({size['pairs']} pairs, {size['videos']} videos)", ""]
        for family, metrics in _families(record, subset).items():
            lines += _results(record, subset, family, metrics)
            lines += _differences(record, subset, family, metrics)
    return "\n".join([*lines, *_paper(record)]).rstrip("\n") + "\n"


def format_csv(record: dict[str, Any]) -> str:
    """Returns every summary of the record, one per line, without published figures."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_csv_rows(record))
    return text.getvalue()


def _csv_rows(record: dict[str, Any]) -> Iterator[list[Any]]:
    for subset in record["subsets"]:
        parts = [(row["label"], part, row[part][subset]) for row in record["rows"] for part in _QUANTITIES]
        parts.append(("best blind baseline", "results", record["blind"][subset]))
        if subset == REANNOTATED:
            parts += [(person, "results", summaries) for person, summaries in record["human"].items()]
        for label, part, summaries in parts:
            for metric, summary in summaries.items():
                kind = "over runs" if summary["over_runs"] else "over videos"
                shown = [summary["value"], summary["runs"], kind, *interval_of(summary), *summary["over_videos"]]
                yield [subset, label, metric, part, *shown]


def headline(record: dict[str, Any], columns: int | None = None) -> str:
    """Returns a short table for the terminal: R@1 mIoU of every row, and its difference to the reference row.

    Args:
        columns: most characters of a line; None is no limit.
    """
    rows = [[record["name"], HEADLINE, f"minus '{record['reference']}'"]]
    for row in record["rows"]:
        result, compared = row["results"][ALL].get(HEADLINE), row["difference"][ALL].get(HEADLINE)
        rows.append([row["label"], cell(result), difference_cell(compared)])
    rows.append(["best blind baseline", cell(record["blind"][ALL].get(HEADLINE)), _ABSENT])
    title = wrapped(f"{record['name']}: {record['title']}", columns)
    return "\n".join([title, *plain_table(rows, columns), wrapped(spread_sentence(record), columns)])


def write_table(directory: Path, record: dict[str, Any]) -> list[Path]:
    """Writes NAME.json, NAME.md and NAME.csv, each whole or not at all, and returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{record['name']}.{ending}" for ending in ("json", "md", "csv")]
    write_json(paths[0], record, indent=1)
    replace_text(paths[1], format_markdown(record))
    replace_text(paths[2], format_csv(record))
    return paths
