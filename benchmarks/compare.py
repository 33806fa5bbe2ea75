"""The published formulation, the plain plan and the shared plan, side by side: python -m benchmarks.compare

Times whole training steps, or with --evaluation whole evaluation steps (forward, ranking, votes), of one batch with the
real data set's sizes. All opponents take turns in one process, so that a machine whose speed drifts slows all of them;
a ratio is the median of the rounds' own ratios. On a CPU the time is the process's, which other programs disturb less.
The peak memory of each is that of a process of its own. Appends JSON lines to --out.

All opponents compute the same: tests/test_peers.py shows it for the published formulation, tests/reconstructor/
test_plans.py for the plans. Only presets `*_released` compute what the published code computes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import step
from benchmarks.peers import build_published_step
from benchmarks.published_step import published_predictions
from pps_fast.cli import Device, choose_device, set_threads
from pps_fast.config_tree import override
from pps_fast.inference.predict import predict
from pps_fast.info import cpu_name
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.types import Batch

# subprocesses run as from a checkout's root
ROOT = Path(__file__).resolve().parents[1]
Opponent = Literal["published", "plain", "shared"]
OPPONENTS: tuple[Opponent, ...] = ("published", "plain", "shared")
Row = dict[str, Any]


@dataclass(frozen=True)
class Arguments:
    """What to compare."""

    preset: Literal["charades_released", "activitynet_released"] = "charades_released"
    """config; its sizes are those of the data set the name begins with"""
    batch_size: int = 32
    """samples per step"""
    rounds: int = 3
    """timed rounds, after one warm-up round; every opponent has a turn in each"""
    evaluation: bool = False
    """evaluation steps instead of training steps"""
    bf16: bool = False
    """bf16 with fp32 statistics for ours; the published formulation stays fp32"""
    device: Device = "auto"
    """where"""
    threads: int | None = 1
    """CPU threads"""
    least_ratio: float | None = None
    """exit with status 1 unless the shared plan is this many times as fast as the published formulation"""
    memory: bool = True
    """also run each opponent in a process of its own for its peak memory"""
    only: Opponent | None = None
    """run one step of this opponent alone and print its peak memory in GiB"""
    out: Path | None = None
    """append JSON lines here"""


def build(arguments: Arguments, opponent: Opponent) -> Callable[[], Any]:
    """Returns a function that does one step of an opponent; every opponent has a batch with the same content."""
    device = choose_device(arguments.device)
    sizes, lengths = step.sizes_of(arguments.preset)
    batch = step.random_batch(sizes, lengths, arguments.batch_size, device)
    config = PRESETS[arguments.preset]
    if opponent == "published":
        published = build_published_step(config, sizes, device)
        if not arguments.evaluation:
            return lambda: published(batch)
        model = published.model.eval().requires_grad_(False)
        return lambda: published_predictions(model, batch)
    precision = "bf16" if arguments.bf16 else "fp32"
    changes = {"reconstructor.plan": opponent, "train.precision": precision}
    ours = step.build_step(override(config, changes), sizes, device)
    return evaluation_of(ours.model, batch, arguments.bf16) if arguments.evaluation else lambda: ours(batch)


def evaluation_of(model: PPS, batch: Batch, is_bf16: bool) -> Callable[[], Any]:
    """Returns the evaluation step of a model."""
    model.eval().requires_grad_(False)

    def evaluate() -> Any:
        autocast = torch.autocast(batch.frames.device.type, dtype=torch.bfloat16, enabled=is_bf16)
        # not inference mode, in which the counter of operations would not see the products
        with torch.no_grad(), autocast:
            return predict(model(batch, with_negatives=False), model.config.inference.selector)

    return evaluate


class FlopCounter(TorchDispatchMode):
    """Counts the arithmetic of matrix products, a multiply-add as two.

    torch's own `FlopCounterMode` also follows modules, and stumbles over a pass without gradients inside another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and adds what it multiplied."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.total += count(*args, **kwargs, out_val=result)
        return result


def matmul_gflop(run: Callable[[], Any]) -> float:
    """Returns the arithmetic of one call's matrix products in 1e9."""
    with FlopCounter() as counter:
        run()
    return counter.total / 1e9


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Returns the seconds of one call: of the process on a CPU, of the clock on a GPU."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    begin = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - begin


def peak_memory(arguments: Arguments, opponent: Opponent) -> float:
    """Returns the peak memory in GiB of a process that does one step of an opponent."""
    flags = ["--evaluation"] if arguments.evaluation else ["--no-evaluation"]
    flags += ["--bf16"] if arguments.bf16 else ["--no-bf16"]
    command = [sys.executable, "-m", "benchmarks.compare", "--only", opponent, "--preset", arguments.preset, *flags]
    command += ["--batch-size", str(arguments.batch_size), "--device", arguments.device]
    command += ["--threads", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout.split()[-1])


def measure(arguments: Arguments) -> list[Row]:
    """Returns a row for each opponent."""
    device = choose_device(arguments.device)
    runs = {opponent: build(arguments, opponent) for opponent in OPPONENTS}
    seconds: dict[str, list[float]] = {opponent: [] for opponent in OPPONENTS}
    for number in range(arguments.rounds + 1):
        for opponent, run in runs.items():
            taken = timed(run, device)
            if number:
                seconds[opponent].append(taken)
    counted = {opponent: matmul_gflop(run) for opponent, run in runs.items()}
    del runs
    common = {
        "what": "evaluation step" if arguments.evaluation else "training step",
        "preset": arguments.preset,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": step.commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    rows = []
    for opponent in OPPONENTS:
        ratios = [p / own for p, own in zip(seconds["published"], seconds[opponent], strict=True)]
        rows.append(
            {
                **common,
                "opponent": opponent,
                "precision": "bf16" if arguments.bf16 and opponent != "published" else "fp32",
                "times_published": round(statistics.median(ratios), 3),
                "least_and_most": [round(min(ratios), 3), round(max(ratios), 3)],
                "matmul_gflop": round(counted[opponent], 1),
                "seconds": [round(value, 3) for value in seconds[opponent]],
                "peak_memory_gib": round(peak_memory(arguments, opponent), 2) if arguments.memory else None,
            }
        )
    return rows


def table(rows: list[Row]) -> str:
    """Returns rows as Markdown."""
    names = ("opponent", "times as fast as published: median (least, most)", "GFLOP of products", "seconds", "peak GiB")
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for row in rows:
        spread = "{:.2f} ({:.2f}, {:.2f})".format(row["times_published"], *row["least_and_most"])
        seconds = f"{statistics.median(row['seconds']):.2f}"
        costs = f"{row['matmul_gflop']:.0f} | {seconds} | {row['peak_memory_gib']}"
        lines.append(f"| {row['opponent']} {row['precision']} | {spread} | {costs} |")
    return "\n".join(lines)


def main(arguments: Arguments) -> int:
    """Prints the comparison; returns the exit status."""
    set_threads(arguments.threads)
    if arguments.only is not None:
        build(arguments, arguments.only)()
        print(step._peak_memory_gib(choose_device(arguments.device)))
        return 0
    rows = measure(arguments)
    print(f"{rows[0]['what']}, {arguments.preset}, batch {arguments.batch_size}\n{table(rows)}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    reached = rows[-1]["times_published"]
    if arguments.least_ratio is not None and reached < arguments.least_ratio:
        print(f"error: the shared plan is {reached} times as fast, expected {arguments.least_ratio}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
