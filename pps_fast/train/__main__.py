"""python -m pps_fast.train: train on a data set, then evaluate on its test split."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pps_fast.cli import PresetName, exit_status, last_value, parse, parse_with_preset
from pps_fast.config import PPSConfig
from pps_fast.devices import Device, free_memory_of, slow_precision
from pps_fast.distributed import TIMEOUT_S, this_place
from pps_fast.files import write_json
from pps_fast.help_text import Program
from pps_fast.machine import note_memory
from pps_fast.presets import EMBEDDED_DATA
from pps_fast.text_table import terminal_columns

if TYPE_CHECKING:
    from pps_fast.ops.choices import Choice
    from pps_fast.pipeline import RunInput, RunResult

OPS_FILE = "ops.json"


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Options of the command that are not part of the config."""

    preset: PresetName = "demo"
    """named config to start from"""
    out: Path | None = None
    """folder of the run: config, log, checkpoints, evaluation; default: runs/PRESET"""
    resume: bool = False
    """continue the run in --out with its own preset and options, bit for bit as if it had never stopped"""
    device: Device = "auto"
    """where to train; auto is the GPU if there is one"""
    threads: int | None = None
    """CPU threads; to repeat a run bit for bit, use the same number"""
    timeout_s: float = TIMEOUT_S
    """under torchrun: seconds that a process waits for one that hangs, before it ends and says so"""
    config: Annotated[PPSConfig, tyro.conf.arg(name="")] = field(default_factory=PPSConfig)
    """all options of the preset"""


PROGRAM = Program(
    name="train",
    description="""Trains a model on pairs of video and sentence, without moment times, and evaluates it on the test
split. Every option of the preset can be changed. With no option at all, `demo` trains on embedded data in minutes.""",
    options=TrainArguments,
    first=(
        "preset", "data.path", "data.fold", "out", "resume", "device", "threads",
        "train.max_steps", "train.epochs", "train.batch_size", "train.learning_rate",
        "train.checkpoint_every", "losses.pull",
    ),
    aliases={"--data": "--data.path"},
    examples="""python -m pps_fast.train
python -m pps_fast.train --preset tiny --out runs/first
python -m pps_fast.train --preset charades --data charades.h5 --out runs/charades
python -m pps_fast.train --preset demo --losses.pull 0 --out runs/without_pull
python -m pps_fast.train --resume --out runs/charades""",
)  # fmt: skip


def run(arguments: TrainArguments) -> int:
    """Trains, evaluates, prints and writes the report; returns the exit status.

    Raises:
        ValueError: for options, data or a run directory that cannot be used.
        NonFiniteLossError: when training met a loss that is not finite.
    """
    from pps_fast.eval.report import format_run
    from pps_fast.pipeline import train_and_evaluate

    config = _config_with_data(arguments)
    out = arguments.out or Path("runs") / arguments.preset
    used: list[Choice] = []
    result = train_and_evaluate(
        config,
        out,
        resume=arguments.resume,
        device=arguments.device,
        threads=arguments.threads,
        on_start=lambda run_input: used.extend(_show_input(run_input, out)),
        timeout_s=arguments.timeout_s,
    )
    status = 0 if result.stopped_by is None else 128 + result.stopped_by
    if this_place().rank > 0:
        return status
    # only now: the run directory has to be empty when training begins
    write_json(out / OPS_FILE, {"device": str(result.device), "ops": [asdict(choice) for choice in used]})
    if result.stopped_by is None:
        print(format_run(result.report, result.written, result.model_dir, terminal_columns()))
    else:
        print(_describe_stop(arguments, out, result))
    return status


def _show_input(run_input: RunInput, out: Path) -> list[Choice]:
    """Prints what is about to be computed, in the first process alone, and returns what serves each op of a step."""
    from pps_fast.data.load import describe_samples
    from pps_fast.data.statistics import copies_note
    from pps_fast.ops.choices import ops_line

    if not run_input.world.is_first:
        return []
    store = run_input.store
    processes = "" if run_input.world.size == 1 else f" of {run_input.world.size} processes"
    samples = describe_samples(store, run_input.splits)
    print(f"{samples}; device {store.device}{processes}; run {out}", flush=True)
    if note := copies_note(store.data.num_frames, store.sizes.num_segments):
        print(f"note: {note}", flush=True)
    used = _choices_of_step(run_input)
    print("\n".join([ops_line(used), *_notes_on_precision(run_input)]), flush=True)
    return used


def _describe_stop(arguments: TrainArguments, out: Path, result: RunResult) -> str:
    """Says that a signal stopped the training, and how it is continued."""
    stopped_by = signal.Signals(result.stopped_by or 0)
    threads = "" if arguments.threads is None else f" --threads {arguments.threads}"
    size = this_place().size
    python = "python" if size == 1 else f"torchrun --standalone --nproc-per-node {size}"
    return (
        f"stopped by {stopped_by.name} after step {result.step}, which is saved\n"
        f"to continue: {python} -m pps_fast.train --resume --out {out}{threads}"
    )


def _choices_of_step(run_input: RunInput) -> list[Choice]:
    """Returns what serves each op of a step, and says beforehand where a step needs more memory than is free."""
    from pps_fast.ops.choices import choices_of
    from pps_fast.train.fake_step import SavedBytes, record_step

    config, store = run_input.config, run_input.store
    # which the training split may not fill, and processes divide
    batch_size = min(config.train.batch_size, len(run_input.splits.train))
    size = max(1, -(-batch_size // run_input.world.size))
    with SavedBytes() as saved:
        records = record_step(config, store.sizes, store.data.word_ids.shape[1], store.device, size)
    remedy = "lower --train.batch-size or use a larger machine"
    note_memory(saved.total, free_memory_of(store.device), f"a step of {size} samples", remedy)
    return choices_of(records)


def _notes_on_precision(run_input: RunInput) -> list[str]:
    """Says what 'auto' stands for and why, and where a device is slow in the precision."""
    precision = run_input.config.train.precision
    notes = [] if run_input.reason is None else [f"train.precision = 'auto': {precision}, as {run_input.reason}"]
    slow = slow_precision(precision, run_input.store.device)
    return notes if slow is None else [*notes, slow]


def _config_with_data(arguments: TrainArguments) -> PPSConfig:
    """Refuses to train a preset for real videos on the embedded data: its table would look like a result."""
    is_real = arguments.preset not in EMBEDDED_DATA and not arguments.resume
    if arguments.config.data.path is None and is_real:
        raise ValueError(
            f"--preset {arguments.preset}: is for prepared data; name the file with --data FILE (see "
            f"docs/your_data.md), or take a preset of the embedded data: {', '.join(EMBEDDED_DATA)}"
        )
    return arguments.config


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(_parse(argv)), is_divided=True)


def _parse(argv: Sequence[str]) -> TrainArguments:
    """Parses the command line; --resume without --preset starts from the run's own options."""
    run_folder = Path(last_value(argv, "--out") or "runs/demo")
    is_help = any(word in ("--help", "-h", "--help-all") for word in argv)
    is_resumed = "--resume" in argv and last_value(argv, "--preset") is None and not is_help
    # a folder without a run is refused later, beside all else that is wrong with one
    if not is_resumed or not run_folder.is_dir():
        return parse_with_preset(PROGRAM, argv)
    from pps_fast.runs.run_directory import read_config

    return parse(PROGRAM, argv, TrainArguments(out=run_folder, config=read_config(run_folder)))


if __name__ == "__main__":
    sys.exit(main())
