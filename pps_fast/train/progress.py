"""Progress of a training: a bar on a terminal, else a line at every log step."""

from __future__ import annotations

import sys
import time
import warnings
from types import TracebackType

from tqdm import tqdm

from pps_fast.files import Note


def duration(seconds: float) -> str:
    """Returns a time as "80 s" or "12 min"."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


class Progress:
    """Shows the steps of a training on stderr.

    Args:
        total: steps of the whole run.
        done: steps that were made before.
        epochs: passes over the data of the whole run.
        is_shown: False shows nothing.

    Warns:
        Note: where nothing is left to do.
    """

    def __init__(self, *, total: int, done: int, epochs: int, is_shown: bool = True) -> None:
        self.total, self.epochs = total, epochs
        # None where it was closed before the program began
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not (is_shown and is_terminal))
        self._has_lines = is_shown and not is_terminal
        self._first, self._begin = done, time.perf_counter()
        if done >= total > 0:
            more = "to train on, raise --train.epochs or --train.max-steps"
            said = f"finished before: all {total} steps are done, only the evaluation is repeated; {more}"
            warnings.warn(said, Note, stacklevel=2)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def begin_epoch(self, epoch: int) -> None:
        """Shows the number of the pass over the data, from 1."""
        self._bar.set_description(f"epoch {epoch}/{self.epochs}")

    def update(self) -> None:
        """Counts one more step."""
        self._bar.update()

    def log(self, *, step: int, epoch: int, loss: float, samples_per_s: float) -> None:
        """Shows figures after `step` steps, of which `epoch` is the pass over the data, from 1."""
        self._bar.set_postfix(loss=f"{loss:.3f}")
        if self._has_lines:
            elapsed = time.perf_counter() - self._begin
            left = elapsed / max(step - self._first, 1) * (self.total - step)
            print(
                f"step {step}/{self.total}, epoch {epoch}/{self.epochs}, loss {loss:.3f}, "
                f"{samples_per_s:.0f} samples/s, {duration(left)} left",
                file=sys.stderr,
                flush=True,
            )
