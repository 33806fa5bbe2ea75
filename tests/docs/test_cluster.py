"""docs/cluster.md can be followed: its commands are parsed, and its file for Slurm trains what it says."""

from __future__ import annotations

from pathlib import Path

from tests.support.documents import ROOT
from tests.support.walkthrough import follow

GUIDE = ROOT / "docs" / "cluster.md"


def test_the_guide_can_be_followed(tmp_path: Path) -> None:
    (tmp_path / "charades.h5").touch()
    walkthrough = follow(GUIDE, tmp_path)
    assert {"runs/divided", "runs/charades"} <= walkthrough.written
    assert (tmp_path / "train.sbatch").read_text(encoding="utf-8").startswith("#!/bin/bash\n#SBATCH")
