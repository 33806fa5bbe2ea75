"""The tracked results stay small, every link in tracked Markdown files leads somewhere, and no picture is unused."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MOST_BYTES, MOST_LINES = 300_000, 2_000
# [text](target) and ![text](target); code spans are taken out before
LINK = re.compile(r"\]\(([^()\s]+)\)")


def _tracked(*patterns: str) -> list[Path]:
    """Tracked files that exist in the working tree; skips outside a checkout."""
    done = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def _prose(path: Path) -> str:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def _anchors(path: Path) -> set[str]:
    """Anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_tracked_results_are_within_their_budget() -> None:
    files = _tracked("benchmarks/results")
    assert files
    contents = [file.read_bytes() for file in files]
    assert sum(map(len, contents)) <= MOST_BYTES, "shorten new results: python -m docs.summarize_results"
    assert sum(content.count(b"\n") for content in contents) <= MOST_LINES


def test_every_relative_link_leads_to_a_file_and_a_heading() -> None:
    broken, count = [], 0
    for path in _tracked("*.md"):
        for target in LINK.findall(_prose(path)):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            if not file.exists() or (anchor and anchor not in _anchors(file)):
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)
    assert count > 40


def test_every_picture_is_linked_from_a_document() -> None:
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in _tracked("*.md")
        for target in LINK.findall(_prose(path))
    }
    pictures = _tracked("docs/*.png", "docs/*.svg", "benchmarks/*.png", "benchmarks/*.svg")
    assert [str(picture.relative_to(ROOT)) for picture in pictures if picture not in linked] == []
