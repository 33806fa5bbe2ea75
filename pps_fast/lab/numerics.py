"""What decides how a run rounds. Two runs that differ in it have other bits from the first update on.

Training amplifies rounding: on planted data, another CPU or another number of threads moves R@1 mIoU by as much as
another seed does. Runs are therefore compared only where all of this is the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pps_fast.lab.results import FinishedRun

# what older results call the machine: a CPU's name, its memory, and torch's threads
_MACHINE = re.compile(r"(?P<processor>.+), [\d.]+ GiB(?:, (?P<threads>\d+) thread\(s\))?")


def numerics_of(result: FinishedRun) -> dict[str, Any]:
    """Returns device type, processor (CPU or GPU), threads (None on a GPU), precision and version of torch of a run."""
    record = result.record
    described = _MACHINE.fullmatch(record["machine"])
    # results from before the fields existed
    older: dict[str, Any] = {"processor": record["machine"], "threads": None}
    if described is not None:
        threads = described["threads"]
        older = {"processor": described["processor"], "threads": None if threads is None else int(threads)}
    return {
        "device": record["device"],
        "processor": record.get("processor", older["processor"]),
        "threads": record.get("threads", older["threads"]),
        "precision": result.config.train.precision,
        "torch": record["torch"],
    }


def common_numerics(results: Sequence[FinishedRun]) -> dict[str, Any]:
    """Returns the numerics that all runs share.

    Args:
        results: one or more.
    Raises:
        ValueError: for runs of different numerics; the message names what differs.
    """
    first, *others = results
    shared = numerics_of(first)
    for other in others:
        differing = [f"{name} {shared[name]} and {value}" for name, value in numerics_of(other).items()
                     if value != shared[name]]  # fmt: skip
        if differing:
            raise ValueError(
                f"runs {first.name} and {other.name} round differently ({'; '.join(differing)}), so that a difference "
                "between them is not that of their rows; remove one of them and repeat it as the other was made"
            )
    return shared
