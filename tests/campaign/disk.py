"""Disks that are full after some bytes: one sentence that names file and remedy, and no older file harmed.

As the superuser a small tmpfs is mounted; otherwise no file may be longer than a limit.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.campaign.child import call
from tests.campaign.common import Tally
from tests.campaign.fuzz import Material, faults_of, fingerprint, snapshot
from tests.campaign.material import SCENARIOS, Scenario
from tests.campaign.spoil import copy_into

# the program that writes, and what stands before in the place of its output
_OLDER = {
    "prepare HDF5": {"out.h5": "data.h5"},
    "blind data.h5": {},
    "train data.h5": {},
    "train resumed": {"run": "run"},
    "eval data.h5": {"new": "run"},
    "eval alignment": {},
    "align data.h5": {},
    "align resumed": {"ali": "ali"},
    "judge answers.jsonl": {},
    "draw curves": {},
    "published in": {},
    "published out": {"x.pt": "cpl.pt"},
    "compare tables": {"lab": "lab"},
}
_WORDS = ("no space", "disk is full", "ulimit -f", "on the disk")
_REMEDIES = ("make room", "another disk", "quota")
_SMALLEST, _LARGEST = 4 << 10, 600 << 10


def attempt(rng: random.Random, folder: Path, material: Material, tally: Tally) -> list[str]:
    """Lets a program write to a disk that is too small for it, or just large enough; returns what is wrong then."""
    scenario = rng.choice([scenario for scenario in SCENARIOS if scenario.name in _OLDER])
    size = rng.randint(_SMALLEST, _LARGEST)
    inputs, disk = folder / "inputs", folder / "disk"
    for path in (inputs, disk):
        path.mkdir()
    # a process with few rights, or a container, may not mount
    is_mounted = _mount(disk, size + _used(scenario, material)) if rng.random() < 0.7 else False
    try:
        return _written(scenario, folder, material, tally, None if is_mounted else size)
    finally:
        if is_mounted:
            subprocess.run(["umount", str(disk)], check=True)


def _written(scenario: Scenario, folder: Path, material: Material, tally: Tally, limit: int | None) -> list[str]:
    """Runs a program that writes below folder/disk.

    Args:
        limit: most bytes of a file; None where the disk itself is small.
    """
    inputs, disk = folder / "inputs", folder / "disk"
    older = _OLDER[scenario.name]
    for name in scenario.reads:
        if name not in older:
            copy_into(inputs, material.folder / name)
    for name, source in older.items():
        copy_as(material.folder / source, disk / name)
    argv = [_place(word, scenario, inputs, disk) for word in scenario.argv]
    before = snapshot(folder)
    output = folder.with_suffix(".txt")
    setup = None if limit is None else _limit_files
    done = call(scenario.program, argv, output, cwd=inputs, time_limit_s=120.0, setup=setup, arguments=(limit,))
    kind = "tmpfs" if limit is None else "limit"
    tally.count(f"{scenario.name}, {kind}, {'written' if done.status == 0 else 'refused'}")
    tally.refused += done.status == 2
    faults = faults_of(done)
    last = done.text.strip().split("\n")[-1]
    if done.status == 2 and not (any(w in last.lower() for w in _WORDS) and any(w in last for w in _REMEDIES)):
        faults.append("a full disk is not told with a remedy")
    if done.status == 2 and str(disk) not in last:
        faults.append("the file is not named")
    if done.status not in (0, 2):
        faults.append(f"status {done.status}")
    faults += _harm(scenario, before, snapshot(folder), done.status == 0)
    if done.status == 0:
        fingerprint(replace(scenario, writes=tuple(f"disk/{name}" for name in scenario.writes)), folder)
    return [f"{scenario.name}, {kind}: {fault}: ...{done.text[-500:]}" for fault in faults[:1]]


def _harm(scenario: Scenario, before: dict[str, str], after: dict[str, str], is_written: bool) -> list[str]:
    """Returns which files that were there before are gone or changed, and what was left behind."""
    faults = []
    for name, content in before.items():
        # a run that goes on replaces its logs and pointers; its checkpoints it deletes when newer ones are whole
        is_of_run = name.startswith(("disk/run/", "disk/lab/", "disk/new/", "disk/ali/"))
        if after.get(name) != content and not is_written and not is_of_run:
            faults.append(f"{name} was harmed")
    faults += [f"{name} is left" for name in after if Path(name).name.startswith(".tmp-") or name.endswith("lock.json")]
    if scenario.name == "train resumed" and not any(name.endswith("/model.json") for name in after):
        faults.append("the run has no checkpoint any more")
    return faults


def copy_as(source: Path, target: Path) -> None:
    """Copies a file or folder of the material to another name."""
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def _place(word: str, scenario: Scenario, inputs: Path, disk: Path) -> str:
    """Returns a word of the command line for inputs in one folder and outputs on the small disk."""
    is_output = any(word.endswith("{}/" + name) for name in scenario.writes)
    return word.replace("{}", str(disk if is_output else inputs))


def _used(scenario: Scenario, material: Material) -> int:
    """Returns the bytes on the disk before the program begins."""
    paths = [material.folder / source for source in _OLDER[scenario.name].values()]
    files = [inner for path in paths for inner in ([path] if path.is_file() else path.rglob("*")) if inner.is_file()]
    # a tmpfs counts whole pages
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in files)


def _mount(folder: Path, size: int) -> bool:
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
