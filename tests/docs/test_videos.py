"""docs/videos.md: its commands parse, and its files follow from one another."""

from __future__ import annotations

from pathlib import Path

from tests.support.documents import ROOT
from tests.support.walkthrough import follow


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    for name in ("pairs.csv", "glove.pkl"):
        (tmp_path / name).touch()
    walkthrough = follow(ROOT / "docs" / "videos.md", tmp_path)
    assert {"frames.h5", "joined.h5", "runs/joined"} <= walkthrough.written
