"""python -m pps_fast.published: weights of the published code of PPS, CPL and CNM, in and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from pps_fast.cli import PresetName, exit_status, parse
from pps_fast.config_tree import override
from pps_fast.help_text import Program
from pps_fast.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class PublishedArguments:
    """Options of the command."""

    source: tyro.conf.Positional[Path]
    """checkpoint file of the published code; with --export a run folder of pps_fast, or one of its checkpoints"""
    preset: PresetName = "charades_released"
    """named config with the settings of the published weights"""
    data: Path | None = None
    """data file, written by `python -m pps_fast.prepare`, that the weights were trained on"""
    sizes: tuple[int, int, int, int] | None = None
    """without the data: width of frame features, width of word vectors, word classes with padding, segments"""
    out: Path | None = None
    """new folder for the imported model"""
    export: Path | None = None
    """write the weights of the source to this file instead, under the published names"""


PROGRAM = Program(
    name="published",
    description="""Converts weights of the published code of PPS, CPL and CNM (files saved by torch.save). Nothing in a
file is run as code.

Import writes a run folder that `python -m pps_fast.eval` takes; the preset must be that of the published settings
(charades_released, activitynet_released, cpl, cnm, ...). Export writes the weights of a model of such a preset so that
the published code loads them.""",
    options=PublishedArguments,
    positional="source",
    first=("source", "preset", "data", "sizes", "out", "export"),
    examples="""python -m pps_fast.published pps.pt --preset charades_released --data charades.h5 --out runs/published
python -m pps_fast.eval --model runs/published
python -m pps_fast.published cpl.pt --preset cpl --sizes 1024 300 1112 200 --out runs/cpl_published
python -m pps_fast.published runs/mine --export mine.pt""",
)


def run(arguments: PublishedArguments) -> int:
    """Converts one way or the other and says where the result is; returns the exit status.

    Raises:
        ValueError: for files or options that cannot be used.
    """
    from pps_fast.data.prepared import read_prepared
    from pps_fast.published.convert import export_checkpoint, import_checkpoint
    from pps_fast.types import FeatureSizes

    _check(arguments)
    if arguments.export is not None:
        export_checkpoint(arguments.source, arguments.export)
        print(f"written: {arguments.export}")
        return 0
    config, data = PRESETS[arguments.preset], None
    if arguments.data is not None:
        data = read_prepared(arguments.data)
        sizes = data.sizes
        config = override(config, {"data.path": str(arguments.data.resolve())})
    else:
        frame_dim, word_dim, vocab_size, num_segments = arguments.sizes or (0, 0, 0, 0)
        sizes = FeatureSizes(frame_dim=frame_dim, word_dim=word_dim, vocab_size=vocab_size, num_segments=num_segments)
    out = arguments.out or Path()
    checkpoint = import_checkpoint(arguments.source, out, config, sizes, data)
    print(f"model: {checkpoint}")
    hint = "" if arguments.data is not None else " --data FILE"
    print(f"to evaluate it: python -m pps_fast.eval --model {out}{hint}")
    return 0


def _check(arguments: PublishedArguments) -> None:
    if (arguments.out is None) == (arguments.export is None):
        raise ValueError("--out and --export: give one of them: a folder to import into, or a file to export to")
    if arguments.export is not None:
        if arguments.export.is_dir() or not arguments.export.parent.is_dir():
            raise ValueError(f"--export {arguments.export}: expected a file in a folder that exists")
        return
    if (arguments.data is None) == (arguments.sizes is None):
        raise ValueError("--data and --sizes: give one of them: the sizes of the data are needed to build the model")
    if arguments.sizes is not None and min(arguments.sizes) < 1:
        raise ValueError(f"--sizes {arguments.sizes}: expected four numbers of at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
