"""trace.jsonl: how the proposals of a few training samples move while a model learns.

One line before the first update, one after every `train.trace_every`-th and one after the last: step (updates done),
samples (the n traced indices, the first of the training split), center, width, importance (n lists of E) and start,
end, nll (n lists of K) as in `types.Proposals` and `types.ModelOutput`. Times are fractions of the video; true moments
are left out, because training does not read them. The same words are hidden on every line, as in evaluation.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from pps_fast.config import PPSConfig
from pps_fast.data.store import Store
from pps_fast.model import PPS
from pps_fast.reading import reading
from pps_fast.runs.json_lines import JsonLines, read_lines
from pps_fast.runs.records import TRACE_FILE as TRACE_FILE
from pps_fast.runs.records import TraceLine, checked_line

NUM_SAMPLES = 6
"""traced samples: in the embedded data, all sentences of one video"""


class Trace:
    """Writes trace.jsonl of a run, or nothing with `train.trace_every = 0`; the training itself goes on unchanged.

    Args:
        run: the run directory.
        config: whose `train.trace_every` and `inference.seed` count.
        store: the data.
        samples: of the training split.
        step: updates already done; later lines of the file are removed.
    """

    def __init__(self, run: Path, config: PPSConfig, store: Store, samples: np.ndarray, *, step: int = 0) -> None:
        self._every = config.train.trace_every
        self._lines: JsonLines | None = None
        if self._every > 0:
            self._samples = samples[:NUM_SAMPLES]
            # gathered once: the store's noise is that of the pass which trains
            self._batch = store.batch(self._samples, seed=config.inference.seed)
            # a run that starts over writes its line of step 0 again
            self._lines = JsonLines(run / TRACE_FILE, step=step or -1)

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()

    def rewrite(self) -> None:
        """Writes trace.jsonl again where it was deleted."""
        if self._lines is not None:
            self._lines.rewrite()

    def is_due(self, step: int, is_last: bool = False) -> bool:
        """Whether a line is written after `step` updates, of which the last one may be the run's last."""
        return self._lines is not None and (is_last or step % self._every == 0)

    def write(self, model: PPS, step: int) -> None:
        """Appends the line of `step`; the model is left in training mode."""
        with torch.no_grad():
            output = model.eval()(self._batch, with_negatives=False)
        model.train()
        proposals = output.proposals
        values = {
            "center": proposals.components.center,
            "width": proposals.components.width,
            "importance": proposals.importance,
            "start": proposals.start,
            "end": proposals.end,
            "nll": output.positive_nll,
        }
        numbers = {name: value.tolist() for name, value in values.items()}
        if self._lines is None:
            raise ValueError("Trace.write: nothing is traced; set train.trace_every above 0")
        self._lines.write({"step": step, "samples": self._samples.tolist(), **numbers})


def read_trace(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's trace.jsonl.

    Raises:
        ValueError: for a run that was not traced, or a damaged file; the message names file, line and field.
    """
    path = run / TRACE_FILE
    if not path.is_file():
        raise ValueError(f"{run}: no {TRACE_FILE}; train with --train.trace-every 10")
    with reading(path):
        lines = enumerate(read_lines(path), start=1)
        return [checked_line(line, TraceLine, f"line {number}") for number, line in lines]
