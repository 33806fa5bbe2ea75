"""Bad rows of the input files: collected, then either refused in one sentence or skipped and reported."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pps_fast.reading import cut

NUM_SHOWN = 5
MAX_STORED = 20
# characters of all sentences that are shown, and of one that is kept
_SHOWN_LENGTH = 800
_KEPT_LENGTH = 400


@dataclass
class Problems:
    """Collects bad rows while files are read, so that one run can name several of them.

    Attributes:
        skip: whether bad rows are left out (`--skip-bad`) instead of refused.
        can_skip: whether the program has that option.
        skipped: per kind of problem, how many rows were left out.
        examples: the first sentences about rows that were left out.
    """

    skip: bool = False
    can_skip: bool = True
    skipped: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    _pending: list[tuple[str, str]] = field(default_factory=list)

    def add(self, kind: str, where: str, what: str) -> None:
        """Notes a bad row.

        Args:
            kind: short name of the problem, for counting: "unknown video".
            where: file and row: "train.txt, line 3".
            what: what is wrong, and with which value.
        """
        self._pending.append((kind, cut(f"{where}: {what}", _KEPT_LENGTH)))

    def count(self, kind: str) -> int:
        """Returns how many rows of a kind were noted since the last `settle`."""
        return sum(pending == kind for pending, _ in self._pending)

    def settle(self) -> None:
        """Ends a pass over the input: refuses the bad rows noted since the last call, or counts them as skipped.

        Raises:
            ValueError: without `skip`, if there are any; one sentence naming the first few and the remedy.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        if not self.skip:
            length = _SHOWN_LENGTH // min(len(pending), NUM_SHOWN)
            shown = "; ".join(cut(sentence, length) for _, sentence in pending[:NUM_SHOWN])
            rest = f"; and {len(pending) - NUM_SHOWN} more" if len(pending) > NUM_SHOWN else ""
            remedy = "correct it" if len(pending) == 1 else f"correct these {len(pending)} rows"
            leave_out = " or pass --skip-bad to leave bad rows out" if self.can_skip else ""
            raise ValueError(f"{shown}{rest}; {remedy}{leave_out}")
        self.skipped.update(kind for kind, _ in pending)
        self.examples.extend(sentence for _, sentence in pending[: MAX_STORED - len(self.examples)])

    def summary(self) -> dict[str, object]:
        """Returns the skipped rows as a JSON-able record: counts by kind, and the first sentences."""
        return {"counts": dict(sorted(self.skipped.items())), "examples": list(self.examples)}
