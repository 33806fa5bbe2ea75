"""What `python -m pps_fast.features` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pps_fast.features.run import Outcome
from pps_fast.reading import one_sentence

_SHOWN = 50


def format_outcome(outcome: Outcome, recipe: dict[str, Any], out: Path, seconds: float) -> str:
    """Returns what was made, how, and which videos failed, one a line.

    Args:
        recipe: how.
        out: the file, written where at least one video could be used.
        seconds: it took.
    """
    count, length_s = len(outcome.lengths_s), sum(outcome.lengths_s)
    lines = [
        f"videos    {count:,} encoded, {length_s:,.0f} s in {seconds:.1f} s; {outcome.num_before:,} were there before",
        f"features  {outcome.num_rows:,} rows of width {recipe['width']}, {recipe['fps']:g} a second",
        f"encoder   {recipe['encoder']}",
    ]
    if out.exists():
        lines.append(f"file      {out} ({out.stat().st_size / 2**20:.1f} MiB)")
    if outcome.failures:
        lines.append(f"failed    {len(outcome.failures):,} of {_total(outcome):,} videos:")
        lines += [f"  {one_sentence(failure)}" for failure in outcome.failures[:_SHOWN]]
        if len(outcome.failures) > _SHOWN:
            lines.append(f"  and {len(outcome.failures) - _SHOWN:,} more")
    return "\n".join(lines)


def _total(outcome: Outcome) -> int:
    return len(outcome.lengths_s) + outcome.num_before + len(outcome.failures)
