"""docs/tour.md leads to functions and classes that exist, in the files it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.documents import ROOT, broken_links

TOUR = ROOT / "docs" / "tour.md"


def _stops(text: str) -> list[tuple[str, Path]]:
    """Returns the linked names and the files they are said to be in."""
    return [(name, TOUR.parent / path) for name, path in re.findall(r"\[`(\w+)`\]\(([^)#]+\.py)\)", text)]


def _defines(file: Path, name: str) -> bool:
    """Whether a file defines a function, class, method or constant, or is the module of that name."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = {node.targets[0] for node in nodes if isinstance(node, ast.Assign)}
    assigned |= {node.target for node in nodes if isinstance(node, ast.AnnAssign)}
    return name in defined | {ast.unparse(target) for target in assigned} | {file.stem}


def test_every_stop_of_the_tour_is_there() -> None:
    stops = _stops(TOUR.read_text(encoding="utf-8"))
    assert len(stops) > 20 and not broken_links(TOUR)
    absent = [f"{name} in {file.name}" for name, file in stops if not (file.exists() and _defines(file, name))]
    assert not absent


def test_the_tour_is_short() -> None:
    assert len(TOUR.read_text(encoding="utf-8").splitlines()) <= 60


def test_an_absent_stop_is_seen() -> None:
    (stop,) = _stops("[`no_such_name`](../pps_fast/model.py)")
    assert stop[1].exists() and not _defines(stop[1], stop[0]) and _defines(stop[1], "PPS")
