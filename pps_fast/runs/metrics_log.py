"""metrics.jsonl: one JSON object per line; optionally the same numbers as TensorBoard events.

Lines of training: step (updates done, this one included), epoch (pass over the data, from 1), lr (of this update), loss
(total of this batch), terms (unweighted, by name), grad_norm (before clipping), seconds (of training since the run
began), samples_per_s (since the line before). Lines of validation: step, epoch, validation (metrics by name). Lines of
what the video tells, once an epoch: step, epoch, split and num_pairs that it was measured on, video_gain (nats, reward,
their standard errors, and the margins of the contrastive loss; see `train.video_gain`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pps_fast.config_tree import flatten
from pps_fast.reading import reading
from pps_fast.runs.json_lines import JsonLines, read_lines
from pps_fast.runs.records import METRICS_FILE as METRICS_FILE
from pps_fast.runs.records import TrainingLine, ValidationLine, VideoGainLine, checked_line

# field that only lines of this kind have; the others are lines of training
_KINDS = {"validation": ValidationLine, "video_gain": VideoGainLine}


class MetricsLog:
    """Appends to metrics.jsonl of a run; lines after `step` are removed first, so that no line appears twice.

    Args:
        run: the run directory.
        step: updates already done.
        tensorboard: also write TensorBoard events to the run's tensorboard/.

    Raises:
        ValueError: with `tensorboard` where that package is not installed.
    """

    def __init__(self, run: Path, *, step: int = 0, tensorboard: bool = False) -> None:
        self._writer = None
        if tensorboard:
            self._writer = require_tensorboard()(str(run / "tensorboard"), purge_step=step + 1)
        self._lines = JsonLines(run / METRICS_FILE, step=step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._lines.close()
        if self._writer is not None:
            self._writer.close()

    def rewrite(self) -> None:
        """Writes metrics.jsonl again where it was deleted; TensorBoard's events of before stay lost."""
        self._lines.rewrite()

    def write(self, values: dict[str, Any]) -> None:
        """Appends and flushes one line, so that it survives a kill of the process."""
        self._lines.write(values)
        if self._writer is not None:
            for name, value in flatten(values, "/").items():
                if name not in ("step", "epoch", "split", "num_pairs"):
                    self._writer.add_scalar(name, value, values["step"])


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl.

    Raises:
        ValueError: for a missing or damaged file; the message names file, line and field.
    """
    path = run / METRICS_FILE
    with reading(path):
        return [
            checked_line(line, _kind(line), f"line {number}") for number, line in enumerate(read_lines(path), start=1)
        ]


def _kind(line: dict[str, Any]) -> type:
    return next((kind for name, kind in _KINDS.items() if name in line), TrainingLine)


def require_tensorboard() -> type:
    """Returns TensorBoard's writer class.

    Raises:
        ValueError: where the package is not installed.
    """
    try:
        # an extra: only a run that asks for it needs it
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ValueError(
            "train.tensorboard = True: the package tensorboard is not installed; "
            "install it with `pip install 'pps_fast[track]'`, or leave the option out"
        ) from error
    return SummaryWriter
