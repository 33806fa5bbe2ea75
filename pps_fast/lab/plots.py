"""A table's record as a picture: measured figures with their intervals, and the paper's in a panel beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pps_fast.draw.style import require_matplotlib
from pps_fast.eval.results import HEADLINE
from pps_fast.lab.report import interval_of

_INCH_PER_ROW = 0.32


def require_plots() -> None:
    """Does nothing where plots can be drawn.

    Raises:
        ValueError: where matplotlib is not installed.
    """
    try:
        require_matplotlib()
    except ValueError as error:
        raise ValueError(f"{error}, or leave plots out with --no-plots") from error


def write_plot(directory: Path, record: dict[str, Any]) -> Path:
    """Draws R@1 mIoU of every row and subset into NAME.png; the same record and matplotlib give the same bytes.

    Raises:
        ValueError: where matplotlib is not installed.
    """
    require_plots()
    from matplotlib.figure import Figure

    rows = list(reversed(record["rows"]))
    has_paper = any(HEADLINE in row["paper"] for row in rows)
    figure = Figure(figsize=(11 if has_paper else 7, 1.8 + _INCH_PER_ROW * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2 if has_paper else 1, sharey=True, squeeze=False)[0]
    _draw_measured(panels[0], record, rows)
    if has_paper:
        _draw_paper(panels[1], record, rows)
    panels[0].set_yticks(range(len(rows)), [row["label"] for row in rows])
    figure.suptitle(record["title"], fontsize="medium")
    path = directory / f"{record['name']}.png"
    # without the program's version, which matplotlib would write into the file
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return path


def _draw_measured(panel: Any, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for number, subset in enumerate(record["subsets"]):
        shift = 0.12 * (number - (len(record["subsets"]) - 1) / 2)
        color = f"C{number}"
        summaries = [(height, row["results"][subset].get(HEADLINE)) for height, row in enumerate(rows)]
        points = [(height - shift, summary) for height, summary in summaries if summary is not None]
        for height, summary in points:
            panel.plot(interval_of(summary), (height, height), color=color, linewidth=1.5)
        panel.plot([summary["value"] for _, summary in points], [height for height, _ in points], "o", color=color,
                   markersize=4, label=subset)  # fmt: skip
        if HEADLINE in record["blind"][subset]:
            panel.axvline(record["blind"][subset][HEADLINE]["value"], color=color, linestyle=":", linewidth=1)
    panel.set_xlabel(f"{HEADLINE}, %, 95 % intervals; dotted: best blind baseline")
    data = record["data"]
    panel.set_title(f"{data['name']}, {record['preset']}", fontsize="small")
    panel.legend(fontsize="x-small")


def _draw_paper(panel: Any, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    points = [(height, row["paper"][HEADLINE]) for height, row in enumerate(rows) if HEADLINE in row["paper"]]
    panel.plot([value for _, value in points], [height for height, _ in points], "s", color="black", markersize=4)
    panel.set_xlabel(f"{HEADLINE}, %, as published")
    first, rest = record["paper_source"].split("; ")
    panel.set_title(f"{first};\n{rest}", fontsize="small")
