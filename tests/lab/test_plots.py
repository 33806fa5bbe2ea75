"""Plots of a record: own and published figures in panels of their own, the same bytes each time."""

from __future__ import annotations

import sys

import pytest

from pps_fast.lab.plots import write_plot
from pps_fast.lab.tables import build_table
from tests.support.lab_results import DESIGN, table


def test_a_missing_matplotlib_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'pps_fast\[plot\]'.*--no-plots"):
        write_plot(tmp_path, {})


def test_the_same_record_gives_the_same_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    record = build_table(table(), DESIGN)
    first = write_plot(tmp_path, record).read_bytes()
    assert first.startswith(b"\x89PNG") and write_plot(tmp_path, record).read_bytes() == first
    without = {**record, "rows": [{**row, "paper": {}} for row in record["rows"]]}
    assert write_plot(tmp_path, without).read_bytes() != first


def test_panels_are_labelled(monkeypatch, tmp_path):
    figure = pytest.importorskip("matplotlib.figure", reason="needs the extra 'plot'")
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *arguments, **options: drawn.append(self))
    write_plot(tmp_path, build_table(table(), DESIGN))
    ours, paper = drawn[0].axes
    assert [label.get_text() for label in ours.get_yticklabels()] == ["without pull", "full model"]
    assert ours.get_title() == "made, tiny" and "as published" in paper.get_xlabel()
    assert "paper, ActivityNet Captions" in paper.get_title() and "not comparable" in paper.get_title()
    (line,) = paper.get_lines()
    assert list(line.get_xdata()) == [37.59]
