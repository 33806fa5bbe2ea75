"""Kills at random moments, also within writes: after a resume the run must be the one that was never killed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from tests.campaign.common import FIT, PATIENCE_S, TRAIN, Tally, add_foreign, faults_of, start

# calls that change files in a whole small run, and the seconds it takes on a busy machine
_CALLS, _SECONDS = {TRAIN: 160, FIT: 50}, 3.0


def attempt(rng: random.Random, folder: Path, expected: Path, tally: Tally) -> list[str]:
    """Kills a run three to nine times, finishes it, and returns what is wrong with it."""
    run, output = folder / "run", folder / "output.txt"
    program = FIT if rng.random() < 0.2 else TRAIN
    if program == FIT:
        expected = expected.with_name("reference_fit")
    tally.count(program)
    for _ in range(rng.randint(3, 9)):
        die_at = rng.randint(1, _CALLS[program]) if rng.random() < 0.6 else None
        process = start(_argv(run), output, die_at, program)
        process.join(PATIENCE_S if die_at is not None else rng.uniform(0.05, _SECONDS))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE_S)
        tally.kills += process.exitcode == -signal.SIGKILL
        if process.exitcode not in (0, -signal.SIGKILL):
            return [f"ended with {process.exitcode}: {output.read_text(encoding='utf-8')[-300:]}"]
        if (run / "config.json").is_file():
            add_foreign(run)
    process = start(_argv(run), output, program=program)
    process.join(PATIENCE_S)
    if process.exitcode != 0:
        return [f"could not be finished: {output.read_text(encoding='utf-8')[-300:]}"]
    if not (run / "notes.txt").is_file() and (run / "checkpoints" / "my_backup").is_dir():
        return ["notes.txt is gone"]
    if not (run / "notes.txt").is_file():
        # killed before there was a run; the foreign files come for the comparison only
        add_foreign(run)
    return faults_of(run, expected, output)


def _argv(run: Path) -> list[str]:
    return ["--out", str(run), *(["--resume"] if (run / "config.json").is_file() else [])]
