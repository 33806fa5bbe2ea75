"""python -m pps_fast.ablate: the paper's ablations, with seeds and folds, beside blind baselines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pps_fast.ablations import ABLATIONS, FULL
from pps_fast.cli import PresetName, exit_status, parse_with_preset
from pps_fast.config import PPSConfig, require
from pps_fast.config_tree import differences, override
from pps_fast.help_text import Program
from pps_fast.lab.options import LabOptions
from pps_fast.presets import PRESETS

if TYPE_CHECKING:
    from pps_fast.lab.tables import Table

if TYPE_CHECKING:
    TableName = str
else:
    _TABLES = (*ABLATIONS, "all")
    TableName = Literal[_TABLES]


@dataclass(frozen=True, kw_only=True)
class AblateArguments(LabOptions):
    """Options of the command."""

    tables: tyro.conf.Positional[tuple[TableName, ...]] = ()
    """which tables to make"""
    preset: PresetName = "demo"
    """named config of the full model"""
    config: Annotated[PPSConfig, tyro.conf.arg(name="")] = field(default_factory=PPSConfig)
    """all options of the preset"""


PROGRAM = Program(
    name="ablate",
    description="""Trains every row of the paper's ablations with several seeds and folds, and makes tables of them.

Finished runs are not trained again, interrupted ones continue, and tables share equal runs. The difference of a row to
the full model is paired: same seeds, same folds. Options of the preset change all rows.""",
    options=AblateArguments,
    positional="tables",
    first=("tables", "preset", "data", "seeds", "folds", "out", "jobs", "device", "tables_only"),
    more="\n".join(["tables:", *(f"  {name:9s} {ablation.title}" for name, ablation in ABLATIONS.items())]),
    examples="""python -m pps_fast.ablate evidence --seeds 5 --out runs/evidence
python -m pps_fast.ablate table2 table5 --preset demo --seeds 3 --jobs 4 --out runs/demo_lab
python -m pps_fast.ablate all --preset charades_clip_small --data clip.h5 --folds 0 1 2 3 4 --out runs/clip_lab
python -m pps_fast.ablate fig4 --preset demo --train.max-steps 200 --losses.pull 1 --out runs/quick
python -m pps_fast.ablate table2 --preset demo --seeds 3 --out runs/demo_lab --tables-only""",
)


def run(arguments: AblateArguments) -> int:
    """Trains what is missing and writes the tables; returns the exit status.

    Raises:
        ValueError: for options or data that cannot be used.
    """
    from pps_fast.lab.command import run_tables
    from pps_fast.lab.experiment import design_of, with_data

    require(bool(arguments.tables), "tables", "none", "one or more of " + ", ".join((*ABLATIONS, "all")))
    config = arguments.config
    names = [name for name, ablation in ABLATIONS.items() if ablation.method == config.method]
    if config.losses.alignment == 0 and "alignment" not in arguments.tables:
        names = [name for name in names if name != "alignment"]
    names = names if "all" in arguments.tables else list(dict.fromkeys(arguments.tables))
    config = with_data(config, arguments.data)
    tables = [ablation_table(name, config, arguments.preset) for name in names]
    return run_tables(tables, design_of(config, arguments.seeds, arguments.folds), arguments)


def ablation_table(name: str, config: PPSConfig, preset: str) -> Table:
    """Returns a table of the paper around a full model; one in which no row is the full model gets it as last row.

    Raises:
        ValueError: where the rows would not be what their labels say.
    """
    from pps_fast.lab.tables import Table, TableRow

    ablation = ABLATIONS[name]
    ablation.check(config)
    rows = [
        TableRow(label=row.label, config=row.apply(config), overrides=row.changes(config), paper=row.paper)
        for row in ablation.rows
    ]
    configs = [row.config for row in rows]
    if config not in configs:
        rows.append(TableRow(label=FULL, config=config))
        configs.append(config)
    return Table(
        name=name,
        title=ablation.title,
        note=ablation.note,
        preset=preset,
        overrides=differences(PRESETS[preset], override(config, {"data.path": None})),
        rows=rows,
        reference=configs.index(config),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse_with_preset(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
