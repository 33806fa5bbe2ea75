"""Which backend serves each op of a training step, and why not the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pps_fast.calls import Call, calls_of, update_call
from pps_fast.config import PPSConfig
from pps_fast.ops import ALL_OPS
from pps_fast.ops.clip_adam import clip_adam
from pps_fast.types import FeatureSizes


@dataclass(frozen=True)
class Choice:
    """What serves an op.

    Attributes:
        op: its name.
        backend: "triton", "torch", "refused" (asked for triton in vain), or "unused" by this config.
        places: the calls it holds for; an op called with several shapes may have several choices.
        reasons: why not the kernel; empty if the kernel serves it.
    """

    op: str
    backend: str
    places: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def _decide(call: Call, backend: str) -> tuple[str, tuple[str, ...]]:
    """Returns what `backend` means for a call, and why not the kernel."""
    reasons = tuple(call.op.reasons(**call.inputs))
    if backend == "torch":
        return "torch", ("backend = 'torch' was asked for",)
    if reasons:
        return ("refused" if backend == "triton" else "torch"), reasons
    # what the op itself goes by; its kernels cannot tell
    if backend == "auto" and call.op.is_interpreted:
        return "torch", ("Triton's interpreter is on, which is slow; backend 'triton' runs it",)
    return "triton", ()


def choices_of(config: PPSConfig, sizes: FeatureSizes, num_columns: int, device: torch.device | str) -> list[Choice]:
    """Returns what serves every op on `device` under `config`, in the order of ALL_OPS, and the update."""
    found: dict[str, dict[tuple[str, tuple[str, ...]], list[str]]] = {op.name: {} for op in (*ALL_OPS, clip_adam)}
    for call in (*calls_of(config, sizes, num_columns, device), update_call(device)):
        found[call.op.name].setdefault(_decide(call, config.backend), []).append(call.place)
    choices: list[Choice] = []
    for name, decisions in found.items():
        made = [Choice(name, backend, tuple(places), reasons) for (backend, reasons), places in decisions.items()]
        choices += made or [Choice(name, "unused")]
    return choices


def ops_line(choices: Sequence[Choice]) -> str:
    """Returns one line with the ops in use by backend: "ops: triton push, pull_distant; torch mixture (...)"."""
    used = [choice for choice in choices if choice.backend != "unused"]
    several = {choice.op for choice in used if sum(other.op == choice.op for other in used) > 1}
    names: dict[str, list[str]] = {}
    for choice in used:
        where = f" in {' and '.join(choice.places)}" if choice.op in several else ""
        names.setdefault(choice.backend, []).append(choice.op + where)
    parts = [f"{backend} {', '.join(members)}" for backend, members in names.items()]
    why = " (python -m pps_fast.info tells why)" if any(choice.reasons for choice in used) else ""
    return f"ops: {'; '.join(parts)}{why}"
