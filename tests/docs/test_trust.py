"""docs/trust.md names tests that exist, in the files that it links to."""

from __future__ import annotations

import re

from tests.support.documents import ROOT, broken_links

PAGE = ROOT / "docs" / "trust.md"


def _absent(text: str) -> list[str]:
    """Returns the linked tests that are not in their files."""
    linked = re.findall(r"\[`(\w+)`\]\(\.\./(tests/[^)]+\.py)\)", text)
    assert linked
    return [name for name, path in linked if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")]


def test_every_kind_of_trouble_has_a_test_that_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "](../tests/" in line]
    kinds = text[text.index("## Kinds") : text.index("## Campaigns")]
    assert len(rows) == sum(line.startswith("| ") for line in kinds.splitlines()) - 2
    assert not broken_links(PAGE) and not _absent(text)


def test_a_test_that_is_not_there_is_seen() -> None:
    assert _absent("[`test_no_such_name`](../tests/docs/test_trust.py)") == ["test_no_such_name"]
