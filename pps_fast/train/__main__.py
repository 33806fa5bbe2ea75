"""python -m pps_fast.train: train on a data set, then evaluate on its test split."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from pps_fast.cli import Device, PresetName, choose_device, exit_status, parse_with_preset, set_threads, slow_precision
from pps_fast.config import PPSConfig
from pps_fast.data.load import load_data
from pps_fast.data.splits import Splits, select_samples
from pps_fast.data.store import Store
from pps_fast.eval.evaluate import evaluate, score
from pps_fast.eval.report import format_table, write_report
from pps_fast.eval.results import HEADLINE
from pps_fast.model import PPS
from pps_fast.ops.choices import choices_of, ops_line
from pps_fast.presets import PRESETS
from pps_fast.runs.checkpoint import find_checkpoint, load_model
from pps_fast.runs.files import write_json
from pps_fast.train.fake_step import record_step
from pps_fast.train.loop import Evaluate, train

OPS_FILE = "ops.json"
_INDENTED = "\n".join(f"  {name}" for name in PRESETS)
DESCRIPTION = f"""Trains PPS without moment times, then evaluates it on the test split.

presets (--preset):
{_INDENTED}

Every option below overrides the preset's value. Without any, `demo` trains on embedded data in minutes.

examples:
  python -m pps_fast.train
  python -m pps_fast.train --preset tiny --out runs/first
  python -m pps_fast.train --preset charades_clip --data.path charades_clip.h5 --data.fold 0
  python -m pps_fast.train --preset demo --losses.pull 0 --out runs/without_pull
  python -m pps_fast.train --preset demo --out runs/demo --resume
"""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Options of the command that are not part of the config."""

    preset: PresetName = "demo"
    """named config to start from"""
    out: Path | None = None
    """run directory: config, metrics, checkpoints, report; runs/PRESET without one"""
    resume: bool = False
    """continue the run in that directory, bit for bit as if it had never stopped"""
    device: Device = "auto"
    """where to train; 'auto' is cuda where there is one"""
    threads: int | None = None
    """CPU threads; a resumed run repeats itself only with the same number"""
    config: Annotated[PPSConfig, tyro.conf.arg(name="")] = field(default_factory=PPSConfig)
    """everything else"""


def run(arguments: TrainArguments) -> int:
    """Trains, evaluates, prints and writes the report; returns the exit status.

    Raises:
        ValueError: for options, data or a run directory that cannot be used.
        NonFiniteLossError: when training met a loss that is not finite.
    """
    set_threads(arguments.threads)
    device = choose_device(arguments.device)
    config = arguments.config
    out = arguments.out or Path("runs") / arguments.preset
    store = Store(load_data(config.data), device)
    splits = select_samples(store.data, config.data)
    print(_describe_input(store, splits, out), flush=True)
    choices = choices_of(record_step(config, store.sizes, store.data.word_ids.shape[1], device))
    print(ops_line(choices), flush=True)
    if note := slow_precision(config, device):
        print(note, flush=True)
    scorer = _validation_scorer(store, splits, config)
    result = train(config, store, splits, out, resume=arguments.resume, evaluate=scorer)
    # only now: the run directory has to be empty when training begins
    write_json(out / OPS_FILE, {"device": str(device), "ops": [asdict(choice) for choice in choices]})
    if result.stopped_by is not None:
        print(f"stopped by {signal.Signals(result.stopped_by).name} after step {result.step}, which is saved")
        print("to continue, repeat the command with --resume")
        return 128 + result.stopped_by
    # what is reported is what was saved
    model, _, _ = load_model(out, device)
    report = evaluate(model, store, splits, config)
    print(format_table(report))
    written = write_report(out, report, config, store.data)
    print(f"\nwritten: {', '.join(map(str, written))}\nmodel: {find_checkpoint(out)}")
    return 0


def _describe_input(store: Store, splits: Splits, out: Path) -> str:
    data, sizes = store.data, store.sizes
    counts = ", ".join(f"{name} {len(getattr(splits, name))}" for name in ("train", "validation", "test"))
    name = data.provenance.get("name", "unnamed")
    return (
        f"data {name}: {len(data.video_ids)} videos of {sizes.num_segments} segments x {sizes.frame_dim}, "
        f"samples: {counts}, {sizes.vocab_size} classes; device {store.device}; run {out}"
    )


def _validation_scorer(store: Store, splits: Splits, config: PPSConfig) -> Evaluate:
    """Returns the function that scores a model on the validation split."""

    def score_validation(model: PPS) -> dict[str, float]:
        metrics = score(model, store, splits.validation, config)
        return {**metrics, "mIoU": metrics[HEADLINE]}

    return score_validation


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def program() -> int:
        return run(parse_with_preset(TrainArguments, argv, program="python -m pps_fast.train", description=DESCRIPTION))

    return exit_status(program)


if __name__ == "__main__":
    sys.exit(main())
