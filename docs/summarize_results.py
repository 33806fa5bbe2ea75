"""Shortens result files to what documents quote: python -m docs.summarize_results FILE ... --out benchmarks/results

Full result files of one table are up to 400 kB. The repository keeps their summaries, which docs/write_results.py reads
as it reads the full files, and which give the same page. By kind of file:

* tables of `pps_fast.ablate` and `pps_fast.compare`: R@1 of all rows, their differences, the blind baseline and the
  control, with both intervals.
* Markdown of such tables: without the tables of R@n for n > 1, which hardly depend on the sentence.
* evaluations (`pps_fast.eval`): R@1 of all rows, the headline and the settings of the run.
* blind baselines (`pps_fast.blind`): all of it.
* JSON lines of the benchmarks: a JSON object with the fields common to all rows in "common", the names of the others in
  "columns" and their values in "rows"; `read_rows` returns the rows. Of ops, the times of forward and backward pass
  together are kept, without the rates that follow from bytes, operations and seconds.

Percentages have three digits after the point, more where one or two would otherwise print differently. A summary is one
line of JSON, and its own summary.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

Record = dict[str, Any]
# of each row of a table, by quantity: the metrics that are kept for all samples, and for each kind of samples
_ALL_R1, _MEAN = "R@1", "R@1 mIoU"
_QUANTITIES = {
    "results": (_ALL_R1, _MEAN),
    "difference": (_MEAN, _MEAN),
    "against_blind": (_MEAN, None),
    "against_shuffled": (_MEAN, None),
    "shuffled": (_ALL_R1, None),
}
# of ops: what follows from bytes, operations, seconds_median and share, and the repetitions that were spent
_RATES = ("gb_per_s", "tflop_per_s", "ceilings", "repetitions")


@dataclass(frozen=True)
class Arguments:
    """What to shorten."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """result files, .json, .jsonl or .md"""
    out: Path
    """directory of the summaries, which have the names of the files, a .jsonl file's ending in .json"""


def summarize(record: Record) -> Record:
    """Returns the summary of a JSON result file, by its kind."""
    if "columns" in record:
        return record
    if record.get("format") == "pps_fast.lab.table":
        return _table(record)
    if "headline" not in record:
        return {**record, "rows": rounded(record["rows"])}
    rows = {name: _kept(metrics, _ALL_R1) for name, metrics in record["rows"].items()}
    others = {name: value for name, value in record.items() if name not in ("best_blind", "control")}
    return {**others, "rows": {name: metrics for name, metrics in rows.items() if metrics}}


def rounded(value: Any) -> Any:
    """Returns nested dicts and lists with shorter floats, which print the same with one digit and with two."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if not isinstance(value, float):
        return value
    # 0.8500000001 and 0.85 print as 0.9 and 0.8: such a value keeps all its digits
    short = round(value, 3)
    return short if all(f"{short:.{digits}f}" == f"{value:.{digits}f}" for digits in (1, 2)) else value


def _table(record: Record) -> Record:
    """A table of the lab, of which R@1 is kept."""
    short = {name: value for name, value in record.items() if name not in ("rows", "blind", "human")}
    short["data"] = {name: record["data"][name] for name in ("name", "sha256", "protocol")}
    short["rows"] = [_table_row(row, record["reference"]) for row in record["rows"]]
    short["blind"] = _subsets(record["blind"], _ALL_R1, _MEAN)
    if "spread" in record:
        short["spread"] = _subsets(record["spread"], _ALL_R1, _MEAN)
    short["human"] = {person: _kept(metrics, _ALL_R1) for person, metrics in record["human"].items()}
    return short


def _table_row(row: Record, reference: str) -> Record:
    short = {name: row[name] for name in ("label", "overrides", "missing")}
    # results of single runs stay with the full table
    short["runs"] = [{"seed": run["seed"], "fold": run["fold"]} for run in row["runs"]]
    short["paper"] = _kept(row["paper"], _ALL_R1)
    for quantity, (of_all, of_kind) in _QUANTITIES.items():
        if quantity != "shuffled" or row["label"] == reference:
            short[quantity] = _subsets(row[quantity], of_all, of_kind)
    return short


def _subsets(values: dict[str, Record], of_all: str, of_kind: str | None) -> dict[str, Record]:
    wanted = {subset: of_all if subset == "all" else of_kind for subset in values}
    return {subset: _kept(values[subset], prefix) for subset, prefix in wanted.items() if prefix is not None}


def _kept(metrics: Record, prefix: str) -> Record:
    """The metrics whose name begins with the prefix; the number of runs stands in each row already."""
    kept = {metric: rounded(value) for metric, value in metrics.items() if metric.startswith(prefix)}
    for value in kept.values():
        if isinstance(value, dict):
            value.pop("runs", None)
    return kept


def without_further_ranks(text: str) -> str:
    """Returns Markdown without the tables of R@n for n > 1."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(part for part in paragraphs if not part.startswith("| R@") or part.startswith("| R@1,"))


def columns_of(rows: list[Record]) -> Record:
    """Returns rows as a table: fields with the same value in all rows once, a column for each other field.

    What a row lacks is null.
    """
    if "op" in rows[0]:
        timed = [row for row in rows if row["mode"] == "both"]
        rows = [{name: value for name, value in row.items() if name not in _RATES} for row in timed]
    first, *others = rows
    common = {name: value for name, value in first.items() if all(row.get(name) == value for row in others)}
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in common))
    return {"common": common, "columns": columns, "rows": [[row.get(name) for name in columns] for row in rows]}


def read_rows(path: Path) -> list[Record]:
    """Returns the rows of a file of JSON lines or of its summary."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    table = json.loads(text)
    named = [zip(table["columns"], row, strict=True) for row in table["rows"]]
    return [{**{name: x for name, x in row if x is not None}, **table["common"]} for row in named]


def main(arguments: Arguments) -> None:
    """Writes the summary of every file."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file in arguments.files:
        if file.suffix == ".md":
            text = without_further_ranks(file.read_text(encoding="utf-8"))
            (arguments.out / file.name).write_text(text, encoding="utf-8")
            continue
        if file.suffix == ".jsonl":
            summary = columns_of(read_rows(file))
        else:
            summary = summarize(json.loads(file.read_text(encoding="utf-8")))
        target = (arguments.out / file.name).with_suffix(".json")
        target.write_text(json.dumps(summary, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
