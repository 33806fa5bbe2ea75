"""docs/your_data.md can be followed from the first file to the evaluated model, with every form `prepare` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pps_fast.data.prepared import read_prepared
from pps_fast.prepare.readers.annotations import ANNOTATION_READERS
from pps_fast.prepare.readers.features import FEATURE_READERS
from pps_fast.prepare.readers.vocabulary import VOCABULARY_READERS
from tests.support.documents import ROOT
from tests.support.walkthrough import follow

GUIDE = ROOT / "docs" / "your_data.md"
PROGRAMS = ("prepare", "blind", "train", "eval")
FORMS = {*ANNOTATION_READERS, *FEATURE_READERS, *VOCABULARY_READERS}
# a pickle that a reader of the guide has no need to make, and an encoder, which is an extra to install
NOT_SHOWN = {"published_pickle", "encoder"}


def test_the_guide_leads_from_files_to_an_evaluated_model(tmp_path: Path) -> None:
    walkthrough = follow(GUIDE, tmp_path, frozenset(f"pps_fast.{name}" for name in PROGRAMS))
    assert len((tmp_path / "moments.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert "model" in walkthrough.names["report"].rows
    written = [read_prepared(path).provenance for path in sorted(tmp_path.glob("*.h5"))]
    read = {word for provenance in written for word in _strings(provenance)} & FORMS
    assert read == FORMS - NOT_SHOWN


def _strings(value: Any) -> list[str]:
    """Returns every string in nested dicts and lists."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []
