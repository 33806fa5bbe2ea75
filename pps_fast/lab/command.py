"""What `ablate` and `compare` share: train the runs behind tables, write the tables, report how it went."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

from pps_fast.config import PPSConfig
from pps_fast.config_tree import differences, override
from pps_fast.lab.experiment import Design, LabOptions, finished_runs, known_data, load_once, plan, run_planned
from pps_fast.lab.human import People
from pps_fast.lab.plots import require_plots, write_plot
from pps_fast.lab.report import headline, write_table
from pps_fast.lab.results import FinishedRun, read_run
from pps_fast.lab.tables import Table, TableRow, build_table
from pps_fast.runs.checkpoint import describe_data
from pps_fast.text_table import terminal_columns

# equal runs may differ in these: the path of the data, and the seed and fold that distinguish a row's runs
_FREE = {"data.path": None, "data.residence": "auto", "data.fold": None, "train.seed": 0}


def run_tables(tables: list[Table], design: Design, options: LabOptions, people: People | None = None) -> int:
    """Trains what is not finished, writes every table and prints the headlines.

    Returns:
        Exit status: 0, 1 when a run failed (the tables say which are missing), 128 + signal when stopped.
    Raises:
        ValueError: for options, data or results that cannot be used.
    """
    if options.plots:
        require_plots()
    if options.tables_only:
        write_tables(tables, design, known_data(options.out), options, people)
        return 0
    rows = {f"{table.name} {row.label!r}": row.config for table in tables for row in _reference_first(table)}
    data = load_once(list(rows.values()))
    described = describe_data(data)
    outcome = run_planned(plan(rows, design, described), data, options)
    if outcome.stopped_by is not None:
        print(f"stopped by {signal.Signals(outcome.stopped_by).name}; to continue, repeat the command")
        return 128 + outcome.stopped_by
    write_tables(tables, design, described, options, people)
    if outcome.failed:
        print(f"{len(outcome.failed)} of the runs failed, and the tables lack them; repeat the command to try again:")
        for name, reason in outcome.failed.items():
            print(f"  {name}: {reason}")
    return 1 if outcome.failed else 0


def _reference_first(table: Table) -> list[TableRow]:
    """Returns the rows with the reference row, which the others are compared with, first."""
    reference = table.rows[table.reference]
    return [reference, *(row for row in table.rows if row is not reference)]


def write_tables(
    tables: list[Table], design: Design, described: dict[str, str], options: LabOptions, people: People | None
) -> None:
    """Makes the tables from finished runs and prints their headlines.

    Args:
        described: `checkpoint.describe_data` of the data set.
    """
    cache: dict[Path, FinishedRun] = {}

    def read(path: Path, config: PPSConfig) -> FinishedRun:
        if path not in cache:
            cache[path] = read_run(path)
        changes = differences(override(config, _FREE), override(cache[path].config, _FREE))
        if changes:
            raise ValueError(f"{path}: was made with {changes} by another version of pps_fast; remove it and repeat it")
        return cache[path]

    for table in tables:
        finished = [finished_runs(row.config, design, described, options.out) for row in table.rows]
        rows = [
            replace(row, runs={seed_fold: read(path, row.config) for seed_fold, path in paths.items()})
            for row, paths in zip(table.rows, finished, strict=True)
        ]
        record = build_table(replace(table, rows=rows), design, people)
        written = write_table(options.out, record)
        if options.plots:
            written.append(write_plot(options.out, record))
        print(f"\n{headline(record, terminal_columns())}\nwritten: {', '.join(map(str, written))}")
