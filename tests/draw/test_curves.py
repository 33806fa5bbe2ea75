"""Curves: a panel for each number, a line for each run that has it, every point as logged."""

from __future__ import annotations

import pytest

from pps_fast.draw.curves import draw_curves

pytest.importorskip("matplotlib", reason="needs the plot extra")


def _lines(factor: float, *terms: str, validated: bool = False) -> list[dict]:
    lines = []
    for step in (10, 20, 30):
        values = {name: factor * step + number for number, name in enumerate(terms)}
        lines.append({"step": step, "loss": factor * step, "terms": values, "grad_norm": factor, "lr": 1e-3})
    if validated:
        lines.append({"step": 30, "validation": {"mIoU": 40.0, "other": 1.0}})
    return lines


def _panels(figure) -> dict:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_every_number_has_its_panel_and_every_run_its_line():
    runs = {"full": _lines(1.0, "contrastive", "push_inter"), "without": _lines(2.0, "contrastive", validated=True)}
    figure = draw_curves(runs)
    panels = _panels(figure)
    assert list(panels) == [
        "total loss, weighted", "contrastive loss", "push inter loss",
        "gradient norm", "learning rate", "validation mIoU, %",
    ]  # fmt: skip
    drawn = {name: [line.get_label() for line in axes.get_lines()] for name, axes in panels.items()}
    assert drawn["contrastive loss"] == ["full", "without"]
    assert drawn["push inter loss"] == ["full"] and drawn["validation mIoU, %"] == ["without"]
    first, second = panels["total loss, weighted"].get_lines()
    assert list(first.get_xdata()) == [10, 20, 30] and list(second.get_ydata()) == [20.0, 40.0, 60.0]
    # a run keeps its color where another run has no line
    assert panels["validation mIoU, %"].get_lines()[0].get_color() == second.get_color() != first.get_color()
    assert all(axes.get_xlabel() == "updates" for axes in panels.values())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["full", "without"]


def test_without_a_validation_there_is_no_empty_panel():
    assert list(_panels(draw_curves({"run": _lines(1.0)}))) == [
        "total loss, weighted", "gradient norm", "learning rate",
    ]  # fmt: skip


@pytest.mark.parametrize("runs", [{}, {"young": []}, {"a": _lines(1.0), "young": []}])
def test_run_without_a_line_is_refused(runs):
    with pytest.raises(ValueError, match="no line of training in (nothing|young); train a few steps first"):
        draw_curves(runs)
