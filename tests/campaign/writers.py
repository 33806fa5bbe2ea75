"""Several processes that want one run directory: one writes, the others are told so, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.campaign.common import PATIENCE_S, Tally, add_foreign, faults_of, start

_REFUSALS = ("in use by process", "not empty; continue", "no run to resume here")


def attempt(rng: random.Random, folder: Path, expected: Path, tally: Tally) -> list[str]:
    """Starts two or three processes at random moments, kills one at times, and returns what is wrong afterwards."""
    run, faults = folder / "run", []
    processes = []
    for number in range(rng.randint(2, 3)):
        output = folder / f"{number}.txt"
        process = start(["--out", str(run), *(["--resume"] if rng.random() < 0.5 else [])], output)
        processes.append((process, output))
        time.sleep(rng.uniform(0.0, 1.5))
    if rng.random() < 0.3 and processes[0][0].is_alive():
        os.kill(processes[0][0].pid or 0, signal.SIGKILL)
    for process, output in processes:
        process.join(PATIENCE_S)
        said = output.read_text(encoding="utf-8") if output.is_file() else ""
        is_refused = process.exitcode == 2 and any(words in said for words in _REFUSALS)
        tally.refused += is_refused
        if not is_refused and process.exitcode not in (0, -signal.SIGKILL):
            faults.append(f"ended with {process.exitcode}: {said[-300:]}")
    output = folder / "last.txt"
    resume = ["--resume"] if (run / "config.json").is_file() else []
    process = start(["--out", str(run), *resume], output)
    process.join(PATIENCE_S)
    if process.exitcode != 0:
        return [*faults, f"could not be finished: {output.read_text(encoding='utf-8')[-300:]}"]
    add_foreign(run)
    return [*faults, *faults_of(run, expected, output)]
