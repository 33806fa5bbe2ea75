"""docs/add_a_kernel.md, applied after docs/add_a_loss.md, gives an op whose kernel agrees with its equation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import ROOT, apply_edits
from tests.support.scratch import copy_project, follow_and_test, run_in

GUIDE, BEFORE = ROOT / "docs" / "add_a_kernel.md", ROOT / "docs" / "add_a_loss.md"
_NAMES_OF_VARIANTS = """
from tests.kernels.aot_excess_width import variants
print([(variant.kernel.__name__, sorted({*variant.signature, *variant.constants})) for variant in variants()])
"""


# a process of its own, which imports torch
@pytest.mark.slow
def test_the_guide_leads_to_a_kernel_that_agrees_with_the_loops(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    apply_edits(BEFORE, project)
    edited = apply_edits(GUIDE, project)
    assert {"kernels/excess_width.py", "pps_fast/ops/excess_width.py", "tests/ops/test_excess_width.py"} <= set(edited)
    follow_and_test(project, GUIDE, "tests/ops/test_excess_width.py")
    # what is compiled ahead of time is what the kernels take
    signatures = re.findall(
        r"def (\w+_kernel)\(([^)]*)\)", (project / "kernels" / "excess_width.py").read_text("utf-8")
    )
    parameters = [(name, sorted(part.split(":")[0].strip() for part in text.split(","))) for name, text in signatures]
    assert run_in(project, "-c", _NAMES_OF_VARIANTS).strip() == str(parameters)
