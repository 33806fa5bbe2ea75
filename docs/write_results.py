"""Writes docs/results.md: the words of docs/results_template.md with every figure read from a result file.

    python docs/write_results.py           write docs/results.md
    python docs/write_results.py --check   only say whether it is what the files give (exit status 1 if not)

Reads docs/published.json (Tables 1 and 3 of the paper) and the summaries in benchmarks/results/: blind_*.json of
`python -m pps_fast.blind`, evaluations of `python -m pps_fast.eval`, and lab/*.json of `python -m pps_fast.ablate` and
`python -m pps_fast.compare`. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# a script of a checkout, which need not be installed
sys.path.insert(0, str(ROOT))

from docs.real_video import real_video, sureness, two_events  # noqa: E402
from pps_fast.eval.blind import RANDOM  # noqa: E402
from pps_fast.eval.bootstrap import Estimate  # noqa: E402
from pps_fast.eval.report import cell as estimate_cell  # noqa: E402
from pps_fast.lab.report import cell, difference_cell, grid, interval_of, spread_sentence  # noqa: E402
from pps_fast.lab.statistics import t_quantile  # noqa: E402

DOCS = ROOT / "docs"
PAGE, PUBLISHED = DOCS / "results.md", DOCS / "published.json"
RESULTS = ROOT / "benchmarks" / "results"
LAB = RESULTS / "lab"
BLIND = (
    ("Charades-STA, filtered", "blind_charades_filtered_20261124.json"),
    ("Charades-STA, full", "blind_charades_full_20261124.json"),
    ("ActivityNet Captions, val_2", "blind_activitynet_20261124.json"),
)


def read(path: Path) -> dict[str, Any]:
    """Returns a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def link(path: Path) -> str:
    """Returns a link from the page to a file of the repository."""
    return f"[{path.name}]({_from_docs(path)})"


def _from_docs(path: Path) -> str:
    return f"../{path.relative_to(ROOT).as_posix()}"


def number(value: float | None) -> str:
    """Returns a percentage as printed, "-" for none."""
    return "-" if value is None else f"{value:.2f}"


def blind_tables() -> list[str]:
    """What guesses that see neither video nor query reach, one section per data set and protocol."""
    lines = []
    for title, name in BLIND:
        record = read(RESULTS / name)
        rows = record["rows"]
        fitted = f"intervals fitted on {record['num_fit_samples']:,} training pairs"
        lines += [f"### {title}: {record['num_samples']:,} pairs", "", f"{link(RESULTS / name)}; {fitted}.", ""]
        for family in ("R@1", "R@5"):
            metrics = [metric for metric in rows[RANDOM] if metric.startswith(family)]
            kept = [row for row in rows if metrics[0] in rows[row]]
            cells = [[row, *(number(rows[row][metric]["value"]) for metric in metrics)] for row in kept]
            lines += grid([family, *(metric.removeprefix(family + " ") for metric in metrics)], cells)
    return lines


def reading() -> list[str]:
    """Published PPS against the best blind baselines, column by column."""
    lines = []
    for table in read(PUBLISHED)["tables"]:
        blind = read(ROOT / table["blind"])["rows"]
        values = next(row["values"] for row in table["rows"] if row["method"] == "PPS")
        figures = dict(zip(table["metrics"], values, strict=True))
        row, value = best_blind(blind, "R@5 IoU>=0.5")
        lines.append(
            f"* **R@5 says next to nothing.** On {table['data']} {row} that see nothing reach {value:.2f} at "
            f"R@5 IoU>=0.5; the paper prints {figures['R@5 IoU>=0.5']:.2f} for PPS. R@1 of PPS as published beside the "
            "best blind baseline of the column:"
        )
        for metric in (metric for metric in figures if metric.startswith("R@1")):
            row, value = best_blind(blind, metric)
            side = "above" if figures[metric] > value else "below"
            lines.append(
                f"  * {metric}: {figures[metric]:.2f}, {abs(figures[metric] - value):.2f} {side} {value:.2f} ({row})."
            )
    return lines


def best_blind(rows: dict[str, Any], metric: str) -> tuple[str, float]:
    """Returns the fitted blind baseline that is best in a column, and its value."""
    values = {
        row: estimates[metric]["value"] for row, estimates in rows.items() if metric in estimates and row != RANDOM
    }
    row = max(values, key=lambda name: values[name])
    return row, values[row]


def published_tables() -> list[str]:
    """Tables 1 and 3 as the paper prints them, and the blind baselines of ours apart."""
    lines = []
    for table in read(PUBLISHED)["tables"]:
        lines += [f"### {table['name']}: {table['data']}", "", f"Pairs: {table['protocol']}.", ""]
        header = ["method, as published", *table["metrics"]]
        stars = {True: "\\*", False: ""}
        lines += grid(
            header, [[row["method"] + stars[row["extra"]], *map(number, row["values"])] for row in table["rows"]]
        )
        known = "; ".join(f"{row['method']}: {row['protocol']}" for row in table["rows"] if row["protocol"])
        lines += [
            "\\* more annotations or large pre-trained models, by the paper.",
            f"Test pairs are known of {known}. For the others the paper does not say, and nothing was checked.",
            "",
        ]
        path = ROOT / table["blind"]
        blind = read(path)
        lines += [f"Guesses that see nothing, from {link(path)} ({blind['num_samples']:,} pairs):", ""]
        best = ["best of its column", *(number(best_blind(blind["rows"], metric)[1]) for metric in table["metrics"])]
        chance = [RANDOM, *(number(blind["rows"][RANDOM][metric]["value"]) for metric in table["metrics"])]
        lines += grid(["blind baseline, ours", *table["metrics"]], [best, chance])
    return lines


def single_runs() -> list[str]:
    """Every evaluation file: its model row beside blind baselines and control."""
    lines = []
    for path in sorted(RESULTS.glob("*_cpu_*.json")):
        record = read(path)
        # the times of steps and ops have names like those of evaluations
        if "headline" not in record:
            continue
        metrics = [metric for metric in record["rows"]["model"] if metric.startswith("R@1")]
        where = f"{record['name']}, protocol {record['protocol']}, {record['num_samples']:,} test pairs"
        lines += [f"### {path.stem}", "", f"{link(path)}: {where}.", ""]
        rows = {row: columns for row, columns in record["rows"].items() if metrics[0] in columns}
        cells = [
            [row, *(estimate_cell(Estimate(**columns[metric])) for metric in metrics)] for row, columns in rows.items()
        ]
        lines += grid(["R@1", *(metric.removeprefix("R@1 ") for metric in metrics)], cells)
        # files written earlier call it a row
        lines += [record["headline"].replace("blind row", "blind baseline"), ""]
    return lines


def lab_tables() -> list[str]:
    """Every table of the lab, shortened: R@1 of all samples, and R@1 mIoU of each kind of samples where there are."""
    lines = []
    for path in sorted(LAB.glob("*.json")):
        record = read(path)
        lines += [f"### {path.stem}: {record['title']}", "", *_lab_words(path, record), "", *_lab_rows(record)]
        kinds = [subset for subset in record["subsets"] if subset != "all"]
        if kinds:
            lines += _lab_kinds(record, kinds)
        lines += [*_lab_verdict(record), ""]
    return lines


def _lab_words(path: Path, record: dict[str, Any]) -> list[str]:
    """What a table was made of."""
    data, protocol, origin = record["data"], record["protocol"], record["made"]
    size = record["subsets"]["all"]
    changes = ", ".join(f"{name} = {value}" for name, value in record["overrides"].items()) or "nothing"
    folds = ", ".join("the data's own split" if fold is None else f"fold {fold}" for fold in protocol["folds"])
    lines = [
        f"[All of it]({_from_docs(path.with_suffix('.md'))}), {link(path)}. Data {data['name']}, protocol "
        f"{data['protocol']}, {folds}: {size['pairs']:,} pairs, {size['videos']:,} videos. Preset {record['preset']}, "
        f"changed in all rows: {changes}; seeds {', '.join(map(str, protocol['seeds']))}. "
        f"{'; '.join(origin['machine'])}, commit {', '.join(origin['commit'])}.",
    ]
    missing = [row["label"] for row in record["rows"] if row["missing"]]
    return [*lines, "", f"NOT COMPLETE: {', '.join(missing)}."] if missing else lines


def _lab_verdict(record: dict[str, Any]) -> list[str]:
    """Which rows differ from the reference beyond the spread of their seeds, and whether as the paper prints."""
    mean, reference = "R@1 mIoU", record["reference"]
    lines = [f"* {_spread_words(record)}"]
    has_seeds = any(summary["over_runs"] for row in record["rows"] for summary in row["difference"]["all"].values())
    if not has_seeds:
        lines.append("* Rows of one run each: none is called different.")
    for subset in (subset for subset in record["subsets"] if has_seeds and subset != "re-annotated"):
        estimates = {row["label"]: row["difference"][subset].get(mean) for row in record["rows"]}
        differ = []
        for label, summary in estimates.items():
            if summary and summary["over_runs"] and not summary["value"] == 0 and _excludes_zero(summary):
                differ.append(f"{label} ({cell(summary, '+')})")
        says = ", ".join(differ) or "none"
        lines.append(f"* {mean}, {subset}: rows that differ from '{reference}' beyond the interval: {says}.")
    ours = {row["label"]: row["difference"]["all"].get(mean) for row in record["rows"]}
    printed = {row["label"]: row["paper"].get(mean) for row in record["rows"]}
    pairs = [
        (ours[label]["value"] < 0, value < printed[reference])
        for label, value in printed.items()
        if value is not None and printed[reference] not in (None, value) and ours[label]
    ]
    if pairs:
        same = sum(mine == theirs for mine, theirs in pairs)
        where = f"* On the same side of '{reference}' as the paper prints, whatever the interval"
        lines.append(f"{where}: {same} of {len(pairs)} rows.")
    return lines


def _spread_words(record: dict[str, Any]) -> str:
    """The spread over seeds in this table, or in the one of the same preset and data that measures it best."""
    others = [read(path) for path in sorted(LAB.glob("*.json"))]
    same = [one for one in others if (one["preset"], one["data"]) == (record["preset"], record["data"])]
    measured = [(spread, one) for one in (record, *same) if (spread := _seed_spread(one)) is not None]
    if not measured:
        return spread_sentence(record)
    spread, source = measured[0] if measured[0][1] is record else max(measured, key=lambda pair: pair[0]["degrees"])
    where = "" if source is record else f"Not measured here; in {source['name']}: "
    return where + spread_sentence({"spread": {"all": {"R@1 mIoU": spread}}})


def _seed_spread(record: dict[str, Any]) -> dict[str, Any] | None:
    """Standard deviation over seeds; from the intervals over runs where a table of one fold does not record it."""
    if "spread" in record or len(record["protocol"]["folds"]) > 1:
        return record.get("spread", {}).get("all", {}).get("R@1 mIoU")
    squares, degrees = 0.0, 0
    for row in record["rows"]:
        summary, count = row["results"]["all"].get("R@1 mIoU"), len(row["runs"])
        if summary and summary["over_runs"]:
            low, high = summary["over_runs"]
            squares += (count - 1) * count * ((high - low) / 2 / t_quantile(count - 1)) ** 2
            degrees += count - 1
    return {"value": math.sqrt(squares / degrees), "degrees": degrees} if degrees else None


def _excludes_zero(summary: dict[str, Any]) -> bool:
    low, high = interval_of(summary)
    return low > 0 or high < 0


def _lab_rows(record: dict[str, Any]) -> list[str]:
    """R@1 of all samples, its differences in mIoU, and below them blind baseline, control and people."""
    metrics = [name for name in record["blind"]["all"] if name.startswith("R@1")]
    mean = "R@1 mIoU"
    parts = ("against_blind", "against_shuffled")
    cells = []
    for row in record["rows"]:
        values = [cell(row["results"]["all"].get(metric)) for metric in metrics]
        compared = [difference_cell(row["difference"]["all"].get(mean))]
        compared += [cell(row[part]["all"].get(mean), "+") for part in parts]
        cells.append([row["label"], str(len(row["runs"])), *values, *compared])
    (reference,) = [row for row in record["rows"] if row["label"] == record["reference"]]
    rest = {
        "best blind baseline": record["blind"]["all"],
        f"{record['reference']}, shuffled queries": reference["shuffled"]["all"],
    }
    for label, estimates in rest.items():
        cells.append([label, "", *(cell(estimates.get(metric)) for metric in metrics), "", "", ""])
    compared = [f"mIoU - {name}" for name in (record["reference"], "blind", "shuffled")]
    return grid(["R@1", "runs", *(metric.removeprefix("R@1 ") for metric in metrics), *compared], cells)


def _lab_kinds(record: dict[str, Any], kinds: list[str]) -> list[str]:
    """R@1 mIoU of each kind of samples, and its difference to the reference."""
    mean = "R@1 mIoU"
    header = ["R@1 mIoU"]
    for kind in kinds:
        header += [f"{kind} ({record['subsets'][kind]['pairs']})", f"minus {record['reference']}"]
    cells = []
    for row in record["rows"]:
        values = [
            text
            for kind in kinds
            for text in (cell(row["results"][kind].get(mean)), difference_cell(row["difference"][kind].get(mean)))
        ]
        cells.append([row["label"], *values])
    blind = [text for kind in kinds for text in (cell(record["blind"][kind].get(mean)), "")]
    cells.append(["best blind baseline", *blind])
    people = record["human"]
    for label, estimates in people.items():
        if mean in estimates:
            blank = {kind: "" for kind in kinds} | {"re-annotated": cell(estimates[mean])}
            cells.append([label, *(text for kind in kinds for text in (blank[kind], ""))])
    return grid(header, cells)


def page() -> str:
    """Returns the whole page."""
    parts = {
        "real_video": real_video(),
        "two_events": two_events(),
        "sureness": sureness(),
        "reading": reading(),
        "source": [read(PUBLISHED)["source"]],
        "published": published_tables(),
        "blind": blind_tables(),
        "lab": lab_tables(),
        "runs": single_runs(),
    }
    words = Template((DOCS / "results_template.md").read_text(encoding="utf-8"))
    return words.substitute({name: "\n".join(lines) for name, lines in parts.items()}).rstrip("\n") + "\n"


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the page; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python docs/write_results.py", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    arguments = parser.parse_args(argv)
    text = page()
    if not arguments.check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE.name} is not what its result files give; run python docs/write_results.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
