"""python -m pps_fast.published: weights of the published code of PPS, CPL and CNM, in and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pps_fast.cli import PresetName, exit_status, parse
from pps_fast.help_text import Program
from pps_fast.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class Import:
    """a checkpoint of the published code becomes a model folder, which `python -m pps_fast.eval` takes"""

    source: tyro.conf.Positional[Path]
    """checkpoint file of the published code"""
    out: Path
    """new folder for the model"""
    preset: PresetName | None = None
    """named config with the settings of the weights; default: the settings that the file carries"""
    vocabulary: Path | None = None
    """the published code's vocabulary, glove.pkl: the words of the model and their vectors"""
    data: Path | None = None
    """instead of the vocabulary: data file of `python -m pps_fast.prepare` that the weights were trained on"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """the weights of a model become a checkpoint that the published code loads"""

    source: tyro.conf.Positional[Path]
    """run folder of pps_fast, or one of its checkpoints"""
    out: Path
    """file to write"""


Options = Annotated[Import, tyro.conf.subcommand("import")] | Annotated[Export, tyro.conf.subcommand("export")]

PROGRAM: Program[Any] = Program(
    name="published",
    description="""Converts weights of the published code of PPS, CPL and CNM (files saved by torch.save). Nothing in a
file is run as code.

The settings must be those of the training: the file's own, or a preset (charades_released, activitynet_released, cpl,
cnm, ...). Export takes models of such presets only.""",
    options=Options,  # type: ignore[arg-type]  # a union stands for its subcommands
    subcommands={"import": Import, "export": Export},
    verb="COMMAND",
    positional="source",
    examples="""python -m pps_fast.published import model.pt --preset charades_released --vocabulary glove.pkl
  --out runs/published
python -m pps_fast.eval --model runs/published --data charades.h5
python -m pps_fast.published export runs/mine --out mine.pt""",
)


def run(arguments: Import | Export) -> int:
    """Converts one way or the other and says where the result is; returns the exit status.

    Raises:
        ValueError: for files or options that cannot be used.
    """
    return _import(arguments) if isinstance(arguments, Import) else _export(arguments)


def _import(arguments: Import) -> int:
    from pps_fast.data.prepared import read_prepared
    from pps_fast.published.convert import import_checkpoint

    if (arguments.vocabulary is None) == (arguments.data is None):
        raise ValueError("--vocabulary and --data: give one of them: a model answers no sentence without its words")
    preset = None if arguments.preset is None else PRESETS[arguments.preset]
    data = None if arguments.data is None else read_prepared(arguments.data)
    checkpoint = import_checkpoint(
        arguments.source,
        arguments.out,
        preset=preset,
        vocabulary=arguments.vocabulary,
        data=data,
        data_path=None if arguments.data is None else str(arguments.data.resolve()),
    )
    print(f"model: {checkpoint}")
    hint = "" if arguments.data is not None else " --data FILE"
    print(f"to evaluate it: python -m pps_fast.eval --model {arguments.out}{hint}")
    return 0


def _export(arguments: Export) -> int:
    from pps_fast.published.convert import export_checkpoint

    if arguments.out.is_dir() or not arguments.out.parent.is_dir():
        raise ValueError(f"--out {arguments.out}: expected a file in a folder that exists")
    export_checkpoint(arguments.source, arguments.out)
    print(f"written: {arguments.out}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
