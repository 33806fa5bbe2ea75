"""python -m pps_fast.align: fit the closed-form alignment of sentences and frames, then evaluate it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pps_fast.cli import exit_status, parse
from pps_fast.config import AlignmentConfig, DataConfig, InferenceConfig
from pps_fast.config_tree import override
from pps_fast.devices import Device
from pps_fast.help_text import Program
from pps_fast.presets import PRESETS
from pps_fast.text_table import terminal_columns


@dataclass(frozen=True, kw_only=True)
class AlignArguments:
    """Options of the command."""

    out: Path
    """folder of the model: config, checkpoint, evaluation"""
    resume: bool = False
    """take the model that was fitted in that folder, or fit it where there is none yet, then evaluate"""
    device: Device = "auto"
    """where to fit; auto is the GPU if there is one"""
    threads: int | None = None
    """CPU threads"""
    data: DataConfig = field(default_factory=lambda: PRESETS["alignment_demo"].data)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    inference: InferenceConfig = field(default_factory=lambda: PRESETS["alignment_demo"].inference)


PROGRAM = Program(
    name="align",
    description="""Fits an alignment of sentences and frames in closed form to pairs of video and sentence, without
moment times and without any network, and evaluates it on the test split. It takes seconds on a CPU, is the baseline
that a trained model has to beat, and leaves a model that every program takes.""",
    options=AlignArguments,
    first=("data.path", "data.fold", "out", "resume", "alignment.curve", "alignment.reading", "device", "threads"),
    aliases={"--data": "--data.path", "--fold": "--data.fold"},
    examples="""python -m pps_fast.align --out runs/alignment
python -m pps_fast.align --data charades_clip.h5 --out runs/charades_alignment
python -m pps_fast.align --data clip.h5 --fold 2 --alignment.curve standardized --out runs/fold2""",
)


def run(arguments: AlignArguments) -> int:
    """Fits, evaluates, prints and writes the report; returns the exit status.

    Raises:
        ValueError: for options, data or a folder that cannot be used.
    """
    from pps_fast.data.load import describe_samples
    from pps_fast.eval.report import format_run
    from pps_fast.pipeline import RunInput, train_and_evaluate

    def show_input(run_input: RunInput) -> None:
        store = run_input.store
        print(f"{describe_samples(store, run_input.splits)}; device {store.device}; run {arguments.out}", flush=True)

    sections = {"data": arguments.data, "alignment": arguments.alignment, "inference": arguments.inference}
    config = override(PRESETS["alignment"], sections)
    result = train_and_evaluate(
        config,
        arguments.out,
        resume=arguments.resume,
        device=arguments.device,
        threads=arguments.threads,
        on_start=show_input,
    )
    print(format_run(result.report, result.written, result.model_dir, terminal_columns()))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
