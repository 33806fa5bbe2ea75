"""Spoiled inputs, extreme options and closed streams for every program: each is refused in a sentence or has no effect.

A program may also take a file that nothing protects, such as features whose values have changed: that is counted apart.
What is covered by a sha256 may never be taken in another form.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pps_fast.data.prepared import read_prepared
from tests.campaign.child import STREAMS, Done, call
from tests.campaign.common import Tally
from tests.campaign.material import SCENARIOS, Scenario, make
from tests.campaign.options import extreme_options
from tests.campaign.spoil import copy_into, spoil

TIME_LIMIT_S = 60.0
MAX_MESSAGE = 1000
MAX_GROWN = 1 << 30
# these take seconds before they read what is spoiled
_SELDOM = ("train data.h5", "train old.h5", "info data.h5", "info old.h5", "train resumed",
           "align resumed")  # fmt: skip
# what frames a complaint about options
_BOX = "│╭╮╰╯─ "
# shares of the attempts below which a file is spoiled, or options are extreme; the rest is good input
_SPOILED, _EXTREME = 0.80, 0.93
# what is printed can be compared where somebody could read it
_READABLE = ("open", "stderr closed", "ascii")
_VOLATILE = ("seconds", "samples_per_s", "elapsed_s", "train_s", "sha256", "files", "made", "machine")


@dataclass
class Material:
    """Good inputs, and what every command writes for them.

    Attributes:
        folder: with the inputs.
        expected: name of a scenario -> fingerprint of its results.
    """

    folder: Path
    expected: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def weights(self) -> list[int]:
        """How often each scenario is chosen."""
        return [1 if scenario.name in _SELDOM else 6 for scenario in SCENARIOS]


def prepare(folder: Path) -> Material:
    """Makes the material of a campaign."""
    (folder / "material").mkdir()
    return Material(make(folder / "material"))


def attempt(rng: random.Random, folder: Path, material: Material, tally: Tally) -> list[str]:
    """Makes one malformed input and returns what is wrong with how a program took it."""
    (scenario,) = rng.choices(SCENARIOS, material.weights)
    expected = _expected(scenario, material, folder.with_name("expected"))
    work = _filled(scenario, material, folder)
    argv, streams, kind = scenario.command(work), "open", rng.random()
    if kind < _SPOILED:
        target = rng.choice(sorted(path for item in scenario.targets for path in work.glob(item) if path.is_file()))
        way = spoil(rng, target)
        label = f"{way} of {target.relative_to(work)}"
    elif kind < _EXTREME:
        extra = extreme_options(rng, scenario.program, work)
        argv, way, label = [*argv, *extra], "options", " ".join(extra)[:200]
    else:
        way = label = "good input"
    if way == "good input" or rng.random() < 0.05:
        streams = rng.choice(list(STREAMS))
        label = f"{label}, streams: {streams}"
    before = snapshot(folder)
    output = folder.with_suffix(".txt")
    done = call(scenario.program, argv, output, cwd=work, time_limit_s=TIME_LIMIT_S, streams=streams)
    writes = [f"work/{name}" for name in scenario.writes] + _named_outputs(argv, work, before)
    faults = faults_of(done, is_heard=streams not in ("stderr closed", "both closed"))
    faults += foreign_faults(before, snapshot(folder), writes)
    tally.count(f"{scenario.program.removeprefix('pps_fast.').removesuffix('.__main__')}, {way}")
    if done.status == 0:
        is_same = is_as_expected(fingerprint(scenario, work, done.text), expected, streams in _READABLE)
        tally.unchanged += is_same
        tally.accepted += not is_same
        is_covered = way == "good input" or (kind < _SPOILED and scenario.is_checked and way != "spoil_sealed")
        if is_covered and not is_same:
            faults.append("accepted in silence: other results")
    elif done.status is not None and done.status > 0:
        tally.refused += 1
        if way == "good input" and not (done.status == 2 and streams == "full"):
            faults.append("good input refused")
    return [f"{scenario.name}: {label}: {fault}: ...{done.text[-700:]}" for fault in faults[:1]]


def _filled(scenario: Scenario, material: Material, folder: Path) -> Path:
    """Returns a folder with what a command reads, in which it works, within the one that is watched."""
    work = folder / "work"
    work.mkdir(parents=True)
    for name in scenario.reads:
        copy_into(work, material.folder / name)
    return work


def _named_outputs(argv: list[str], work: Path, before: dict[str, str]) -> list[str]:
    """Returns further names that an extreme option may have asked to be written: those that were not there before."""
    words = [word.partition("=")[2] or word for word in argv]
    names = [os.path.relpath(work / word, work.parent) for word in words if "\0" not in word]
    names += [str(parent) for name in names for parent in Path(name).parents]
    folders = {str(parent) for name in before for parent in Path(name).parents}
    return [name for name in names if name not in before and name not in folders]


def _expected(scenario: Scenario, material: Material, folder: Path) -> Any:
    """Returns the fingerprint of what a command writes for good input."""
    if scenario.name not in material.expected:
        work = _filled(scenario, material, folder)
        done = call(scenario.program, scenario.command(work), folder.with_suffix(".txt"), time_limit_s=300.0)
        if done.status != 0:
            raise RuntimeError(f"{scenario.name}: {done.text}")
        material.expected[scenario.name] = fingerprint(scenario, work, done.text)
        shutil.rmtree(folder)
    return material.expected[scenario.name]


def faults_of(done: Done, is_heard: bool = True) -> list[str]:
    """Returns what is wrong with how a program ended, whatever it was asked; `is_heard`: its stderr is open."""
    if done.status is None:
        return ["hang"]
    if done.status < 0:
        return [f"crash (signal {-done.status})"]
    faults = []
    if "Traceback (most recent call last)" in done.text:
        faults.append("traceback")
    if not faults and any(re.match(r"[\w.]+Error: |.*\w+Warning: |.*HDF5-DIAG", line) for line in _said(done.text)):
        faults.append("words of a library")
    # that some of it was lost is said last of all
    last = [line for line in _said(done.text) if not line.startswith("note: stdout: ")][-1:]
    if (
        is_heard
        and done.status not in (0, 130)
        and not faults
        and not any(
            re.search("error: |╰|(see|run) python -m", line) or "see python -m" in line or "run python -m" in line
            for line in last
        )
    ):
        faults.append(f"status {done.status} without a sentence")
    errors = [line for line in _said(done.text) if line.startswith(("error: ", "note: "))]
    box = [line for line in _said(done.text) if line.startswith(("│", "╭"))]
    if any(len(line) > MAX_MESSAGE for line in errors) or sum(len(line.strip(_BOX)) for line in box) > MAX_MESSAGE:
        faults.append("message longer than 1,000 characters")
    if done.grown > MAX_GROWN:
        faults.append(f"memory: {done.grown >> 20} MiB")
    return faults


def _said(text: str) -> list[str]:
    """Returns the lines that are no progress."""
    return [line.split("\r")[-1].strip() for line in text.split("\n") if line.split("\r")[-1].strip()]


def snapshot(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file below a folder, and what else stands there."""
    names = {}
    for path in sorted(folder.rglob("*")):
        is_plain = path.is_file() and not path.is_symlink()
        names[path.relative_to(folder).as_posix()] = (
            hashlib.sha256(path.read_bytes()).hexdigest() if is_plain else "a folder" if path.is_dir() else "other"
        )
    return names


def foreign_faults(before: dict[str, str], after: dict[str, str], writes: Sequence[str]) -> list[str]:
    """Returns what was changed or left behind although nobody has asked for it."""
    mine = tuple(f"{name}/" for name in writes)
    changed = [
        name
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in writes and not name.startswith(mine)
    ]
    left = [name for name in after if Path(name).name.startswith(".tmp-") and name not in before]
    left += [name for name in after if name.endswith("lock.json") and name not in before]
    return [f"foreign file touched: {name}" for name in changed] + [f"left behind: {name}" for name in left]


def is_as_expected(results: dict[str, Any], expected: dict[str, Any], is_read: bool) -> bool:
    """Whether a command has written what it should, and printed it where somebody reads."""
    names = expected.keys() if is_read else expected.keys() - {"printed"}
    return all(results.get(name) == expected[name] for name in names) and results.keys() <= expected.keys()


def fingerprint(scenario: Scenario, folder: Path, text: str = "") -> dict[str, Any]:
    """Returns what a command has written, without times and places, and what it printed if that is its result."""
    results: dict[str, Any] = {}
    if scenario.is_printing:
        results["printed"] = [line for line in text.splitlines() if line.startswith("{")]
    for name in scenario.writes:
        paths = sorted((folder / name).rglob("*")) if (folder / name).is_dir() else [folder / name]
        for path in paths:
            label = path.relative_to(folder).as_posix()
            if path.name == "out.h5" and path.is_file():
                results[label] = read_prepared(path).content
            elif (
                path.suffix == ".json"
                and path.is_file()
                and path.name.startswith(("evaluation", "judgment", "blind", "table", "fig"))
            ):
                results[label] = _plain(json.loads(path.read_text(encoding="utf-8")), str(folder))
            elif (
                path.suffix in (".png", ".safetensors", ".jsonl", ".md")
                and path.is_file()
                and "metrics" not in path.name
            ):
                text = path.read_bytes().replace(str(folder).encode(), b"")
                results[label] = hashlib.sha256(text).hexdigest()
    return results


def _plain(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner, folder) for name, inner in value.items() if name not in _VOLATILE}
    if isinstance(value, list):
        return [_plain(inner, folder) for inner in value]
    return value.replace(folder, "") if isinstance(value, str) else value
