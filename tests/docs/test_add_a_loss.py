"""docs/add_a_loss.md, applied to a copy of the project, gives a term that passes its tests and trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.documents import ROOT, GuideError, apply_edits
from tests.support.scratch import copy_project, follow_and_test

GUIDE = ROOT / "docs" / "add_a_loss.md"


# a process of its own, which imports torch
@pytest.mark.slow
def test_the_guide_leads_to_a_term_that_is_tested_and_trains(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    assert "pps_fast/losses.py" in apply_edits(GUIDE, project)
    tests = ("-k", "losses or term or reach", "tests/test_config.py", "tests/test_losses.py")
    follow_and_test(project, GUIDE, *tests, executes=("pps_fast.train",))
    first_line = (project / "runs" / "width" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert '"width"' in first_line


def test_a_change_that_no_longer_fits_is_refused(tmp_path: Path) -> None:
    guide, project = tmp_path / "guide.md", tmp_path / "project"
    project.mkdir()
    (project / "a.py").write_text("x = 1\ny = 2\nx = 1\n", encoding="utf-8")
    for context, count in (("x = 1", 2), ("z = 3", 0)):
        guide.write_text(f"```diff a.py\n {context}\n+w = 0\n```\n", encoding="utf-8")
        with pytest.raises(GuideError, match=f"guide.md:1: a.py has these lines {count} times"):
            apply_edits(guide, project)
    guide.write_text("```diff a.py\n y = 2\n-x = 1\n+x = 5\n```\n```python a/b.py\nz = 0\n```\n", encoding="utf-8")
    assert apply_edits(guide, project) == ["a.py", "a/b.py"]
    assert (project / "a.py").read_text(encoding="utf-8") == "x = 1\ny = 2\nx = 5\n"
    guide.write_text("```python a/b.py\nz = 0\n```\n", encoding="utf-8")
    with pytest.raises(GuideError, match="a/b.py exists; write the change as a diff"):
        apply_edits(guide, project)
