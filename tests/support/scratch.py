"""Copies of the project on which a guide's changes are tried."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.documents import ROOT

_SOURCES = ("pps_fast", "kernels", "benchmarks", "docs", "tests", "Makefile", "pyproject.toml", "setup.py")
_FOLLOW = """
import sys
from pathlib import Path
import pytest
guide, executes, *tests = sys.argv[1:]
status = pytest.main(["-q", "-p", "no:cacheprovider", *tests])
if status:
    sys.exit(status)
from tests.support.walkthrough import follow
follow(Path(guide), Path.cwd(), frozenset(executes.split(",")))
"""


def copy_project(folder: Path) -> Path:
    """Copies packages and tests, without caches, golden files and results, into a folder and returns it."""
    ignore = shutil.ignore_patterns("__pycache__", "*.npz", "results", "pictures")
    for name in _SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    return folder


def run_in(project: Path, *arguments: str) -> str:
    """Runs Python with these arguments in a copy of the project and returns what it printed.

    Raises:
        AssertionError: for another exit status than 0; the message has the output.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    env = inherited | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=project, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(arguments)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def follow_and_test(project: Path, guide: Path, *tests: str, executes: tuple[str, ...] = ()) -> None:
    """Follows a guide in a copy of the project, whose programs have what the guide adds, and runs pytest there.

    Args:
        tests: arguments of pytest.
        executes: programs that run; the others' command lines are parsed.
    Raises:
        AssertionError: where the guide says what is not so, a test fails, or none is chosen.
    """
    # one process for both: most of its time is the import of torch
    run_in(project, "-c", _FOLLOW, str(guide), ",".join(executes), *tests)
