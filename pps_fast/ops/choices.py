"""Which backend serves each op of a step, and why not the other, from the records of the step's calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pps_fast.ops import ALL_OPS
from pps_fast.ops.clip_adam import clip_adam
from pps_fast.ops.record import Record

# more sites than this are counted instead of listed
_MAX_LISTED_SITES = 3


@dataclass(frozen=True)
class Choice:
    """What serves an op.

    Attributes:
        op: its name.
        backend: "triton", "torch", "refused" (asked for triton in vain), or "unused" where no record calls it.
        sites: where the op is called; an op called with several shapes may have several choices.
        reasons: why not the kernel; empty if the kernel serves it.
    """

    op: str
    backend: str
    sites: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Returns the sites as text: a list if they are few, else their number and parts of the model."""
        if len(self.sites) <= _MAX_LISTED_SITES:
            return ", ".join(_listed(self.sites))
        parts = dict.fromkeys(site.split(":")[0].split(".")[0] for site in self.sites)
        return f"{len(self.sites)} sites in {', '.join(parts)}"


def _listed(sites: tuple[str, ...]) -> list[str]:
    """Returns the sites, one that also stands within others once: "b (also within a)" for "b" and "a: b"."""
    within = [(site, *site.rpartition(": ")[::2]) for site in sites]
    names = []
    for site, outer, inner in within:
        callers = [other for _, other, called in within if other and called == inner]
        if not outer:
            names.append(f"{inner} (also within {', '.join(callers)})" if callers else inner)
        elif inner not in sites:
            names.append(site)
    return names


def _decide(record: Record) -> tuple[str, tuple[str, ...]]:
    """Returns what serves a call, and why not the kernel."""
    if record.backend == "torch":
        return "torch", ("backend = 'torch' was asked for",)
    reasons = tuple(record.op.reasons(**record.inputs))
    if reasons:
        return ("refused" if record.backend == "triton" else "torch"), reasons
    # what the op itself goes by; its kernels cannot tell
    if record.backend == "auto" and record.op.is_interpreted:
        return "torch", ("Triton's interpreter is on, which is slow; backend 'triton' runs it",)
    return "triton", ()


def choices_of(records: Sequence[Record]) -> list[Choice]:
    """Returns what serves each op in the records, in the order of ALL_OPS and then the update's."""
    sites: dict[str, dict[tuple[str, tuple[str, ...]], list[str]]] = {op.name: {} for op in (*ALL_OPS, clip_adam)}
    for record in records:
        sites[record.op.name].setdefault(_decide(record), []).append(record.site)
    choices: list[Choice] = []
    for name, decisions in sites.items():
        used = [Choice(name, backend, tuple(dict.fromkeys(at)), why) for (backend, why), at in decisions.items()]
        choices += used or [Choice(name, "unused")]
    return choices


def ops_line(choices: Sequence[Choice]) -> str:
    """Returns one line with the ops in use by backend: "ops: triton push, pull_distant; torch mixture (...)"."""
    used = [choice for choice in choices if choice.backend != "unused"]
    several = {choice.op for choice in used if sum(other.op == choice.op for other in used) > 1}
    names: dict[str, list[str]] = {}
    for choice in used:
        where = f" in {choice.where}" if choice.op in several else ""
        names.setdefault(choice.backend, []).append(choice.op + where)
    parts = [f"{backend} {', '.join(members)}" for backend, members in names.items()]
    why = " (python -m pps_fast.info tells why)" if any(choice.reasons for choice in used) else ""
    return f"ops: {'; '.join(parts)}{why}"
