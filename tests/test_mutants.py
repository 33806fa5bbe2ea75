"""The list of faults stays true: each still applies, and one of them is really found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants import COPIED, MUTANTS, ROOT, run_mutant


@pytest.mark.parametrize("name", MUTANTS)
def test_every_fault_can_still_be_put_where_it_was(name: str) -> None:
    mutant = MUTANTS[name]
    assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1
    assert (ROOT / mutant.tests.split()[0]).is_file()
    assert mutant.new != mutant.old


def test_a_fault_is_found_and_a_change_that_is_none_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for item in COPIED:
        copy = shutil.copytree if (ROOT / item).is_dir() else shutil.copy
        copy(ROOT / item, tmp_path / item)
    assert run_mutant("warm-up reaches its rate one update late", tmp_path)
    harmless = MUTANTS["clip_norm 1"].__class__(
        "pps_fast/train/schedule.py", "slope = (", "slope = 1.0 * (", "tests/train/test_schedule.py"
    )
    monkeypatch.setitem(MUTANTS, "harmless", harmless)
    assert not run_mutant("harmless", tmp_path)
    # the copy is as it was
    assert (tmp_path / "pps_fast/train/schedule.py").read_text() == (ROOT / "pps_fast/train/schedule.py").read_text()
