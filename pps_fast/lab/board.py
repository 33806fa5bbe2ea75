"""Shows how far the runs of an experiment are: a line for each that ends, and on a terminal a bar over all updates."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from pps_fast.lab.runs import Run
from pps_fast.runs.json_lines import read_lines
from pps_fast.runs.metrics_log import METRICS_FILE
from pps_fast.train.progress import duration

# without tqdm's own estimate, which takes no account of runs that are waiting
_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} updates"


class Board:
    """Progress of runs.

    Args:
        folder: of the run directories.
        runs: all of them.
        todo: those that are not finished.
        updates: name of a run -> updates it makes in all.
    """

    def __init__(self, folder: Path, runs: list[Run], todo: list[Run], updates: Mapping[str, int]) -> None:
        self.folder, self.num_runs = folder, len(runs)
        self.before = {run.name: self._step(run) for run in todo}
        # name -> updates to be made now
        self.left = {run.name: updates[run.name] - self.before[run.name] for run in todo}
        self.gained, self.begin = 0, time.monotonic()
        self.bar = tqdm(total=sum(self.left.values()), disable=None, leave=False, bar_format=_BAR)
        self.say(f"{self.num_runs} runs, {self.num_runs - len(todo)} of them finished before")

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def start(self, run: Run, where: str) -> None:
        """Says which run begins where, if the places have names."""
        if where:
            self.say(f"[{self._count()}] started {where}: {run.about}")

    def finish(self, run: Run, where: str) -> None:
        """Says that a run is finished, and by whom."""
        self._end(run, f"finished{where and f' {where}'}: {run.about}")

    def fail(self, run: Run, where: str, reason: str) -> None:
        """Says that a run failed."""
        self._end(run, f"FAILED{where and f' {where}'}: {run.about}: {reason}")

    def _end(self, run: Run, text: str) -> None:
        self.gained += self.left.pop(run.name)
        self.say(f"[{self._count()}] {text}{self._time_left(0)}")

    def show(self, active: Mapping[str, Run]) -> None:
        """Brings the bar up to date; `active`: where -> the run there."""
        if not self.bar.disable:
            steps = {where: self._step(run) - self.before[run.name] for where, run in active.items()}
            under_way = sum(steps.values())
            self.bar.n = self.gained + under_way
            each = ", ".join(f"{where} {step}/{self.left[active[where].name]}" for where, step in steps.items())
            self.bar.set_description(f"runs {self._count()}{self._time_left(under_way)} ({each})")

    def _count(self) -> str:
        return f"{self.num_runs - len(self.left)}/{self.num_runs}"

    def _time_left(self, under_way: int) -> str:
        """Returns the estimated remaining time in words, given the updates of the runs that are still going."""
        gained = self.gained + under_way
        if not self.left or gained <= 0:
            return ""
        seconds = (time.monotonic() - self.begin) / gained * (sum(self.left.values()) - under_way)
        return f", about {duration(seconds)} left"

    def _step(self, run: Run) -> int:
        """Returns the updates a run has logged."""
        path = self.folder / run.name / METRICS_FILE
        lines = read_lines(path) if path.exists() else []
        return lines[-1]["step"] if lines else 0

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
