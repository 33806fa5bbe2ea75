"""Variants stand under each other with their answers and proposals, for one query."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pps_fast.draw.style import SERIES
from pps_fast.draw.variants import draw_variants
from pps_fast.proposals.layout import ramp, uniform
from tests.support.draw_views import lines, texts, view_of

pytest.importorskip("matplotlib", reason="needs the plot extra")


def test_each_variant_has_its_answer_and_all_its_proposals():
    views = {"full": view_of(), "one Gaussian": view_of(uniform(4, 1))}
    figure = draw_variants(views)
    top, *rows = figure.axes
    assert list(top.get_lines()[0].get_xdata()) == [8.0, 20.0]
    for axes, view, color in zip(rows, views.values(), SERIES, strict=False):
        (answer,) = lines(axes, "answer")
        assert list(answer.get_xdata()) == pytest.approx(view.answer_s()) and answer.get_color() == color
        spans = [pytest.approx(span) for span in view.spans_s()]
        assert [tuple(line.get_xdata()) for line in lines(axes, "proposal")] == spans
        dots = [item for item in axes.collections if item.get_label() == "center of a component"]
        assert [len(item.get_offsets()) for item in dots] == list(view.layout.components_per_proposal)
    shown = texts(figure)
    assert [text for text in shown if text.startswith("IoU")] == [
        f"IoU {view.overlap():.2f}" for view in views.values()
    ]
    assert {"full", "one Gaussian", "truth"} <= set(shown)


def test_different_queries_are_refused():
    views = {"a": view_of(ramp(2)), "b": replace(view_of(ramp(2)), sample=8)}
    with pytest.raises(ValueError, match="2 different queries"):
        draw_variants(views)
    with pytest.raises(ValueError, match="0 different queries"):
        draw_variants({})
