"""python -m pps_fast.compare: presets on one data set, beside blind baselines and beside people."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pps_fast import cli
from pps_fast.cli import PresetName, exit_status
from pps_fast.config import PPSConfig, require
from pps_fast.config_tree import differences, override
from pps_fast.help_text import Program
from pps_fast.lab.options import LabOptions
from pps_fast.presets import PRESETS

if TYPE_CHECKING:
    from pps_fast.lab.tables import Table


@dataclass(frozen=True, kw_only=True)
class CompareArguments(LabOptions):
    """Options of the command."""

    presets: tyro.conf.Positional[tuple[PresetName, ...]] = ()
    """named configs to compare; the first is the one that the others are compared with"""
    name: str = "comparison"
    """name of the table's files"""
    human: tuple[Path, ...] = ()
    """csv files with people's answers, to score beside the models"""
    config: Annotated[PPSConfig, tyro.conf.arg(name="")] = field(default_factory=PPSConfig)
    """all options of the presets"""


PROGRAM = Program(
    name="compare",
    description="""Trains presets on one data set with the same seeds and folds, and compares them, paired by seed and
fold.

Options of the presets change all of them, so that they can be compared at one size. Finished runs, also those of
pps_fast.ablate in the same folder, are not trained again.""",
    options=CompareArguments,
    positional="presets",
    first=("presets", "data", "seeds", "folds", "out", "name", "human", "jobs", "device", "tables_only"),
    more="""--human takes the re-annotation of Otani et al. (test_00.csv, ...: five people per query, percent of the
video's length); people are then scored on the test pairs they answered, beside the presets on the same pairs.""",
    examples="""python -m pps_fast.compare demo tiny --seeds 3 --train.epochs 2 --out runs/compare
python -m pps_fast.compare charades charades_released --data clip.h5 --folds 0 1 2 3 4 --seeds 3 \\
  --encoder.hidden-dim 64 --out runs/clip_compare
python -m pps_fast.compare charades_clip_small --data clip.h5 --folds 0 --human test_0?.csv --out runs/human""",
)


def parse(argv: Sequence[str]) -> tuple[CompareArguments, dict[str, PPSConfig]]:
    """Parses the command line once for every preset, so that an option means the same to all of them.

    Returns:
        The options, and preset -> its config with the given fields replaced, in the order given.
    Raises:
        ValueError: for no preset, or one that is given twice.
    """

    def parse_for(config: PPSConfig) -> CompareArguments:
        return cli.parse(PROGRAM, argv, CompareArguments(config=config))

    arguments = parse_for(PPSConfig())
    is_name = re.fullmatch(r"[\w.+-]{1,100}", arguments.name) is not None and not arguments.name.startswith(".")
    require(is_name, "--name", arguments.name, "letters, digits, '_', '-', '+' and '.', the name of files in --out")
    names = arguments.presets
    require(bool(names), "presets", "none", "one or more of " + ", ".join(PRESETS))
    require(len(set(names)) == len(names), "presets", list(names), "each preset once")
    return arguments, {name: parse_for(PRESETS[name]).config for name in names}


def comparison_table(name: str, configs: dict[str, PPSConfig]) -> Table:
    """Returns the table of the presets, the first of which is the reference."""
    from pps_fast.lab.tables import Table, TableRow

    first, *_ = configs
    return Table(
        name=name,
        title="presets on one data set",
        preset=first,
        overrides=differences(PRESETS[first], override(configs[first], {"data.path": None})),
        rows=[
            TableRow(label=preset, config=config, overrides=differences(configs[first], config))
            for preset, config in configs.items()
        ],
        reference=0,
    )


def run(argv: Sequence[str]) -> int:
    """Trains what is missing and writes the table; returns the exit status.

    Raises:
        ValueError: for options, data or people's answers that cannot be used.
    """
    arguments, configs = parse(argv)
    # after the parsing, so that help loads no torch
    from pps_fast.lab.command import run_tables
    from pps_fast.lab.experiment import design_of, with_data
    from pps_fast.lab.human import read_people

    people = read_people(list(arguments.human)) if arguments.human else None
    configs = {name: with_data(config, arguments.data) for name, config in configs.items()}
    seeds = {config.train.seed for config in configs.values()}
    require(len(seeds) == 1, "train.seed", sorted(seeds), "one for all presets; give --train.seed")
    design = design_of(next(iter(configs.values())), arguments.seeds, arguments.folds)
    return run_tables([comparison_table(arguments.name, configs)], design, arguments, people)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
