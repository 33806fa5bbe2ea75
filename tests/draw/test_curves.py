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


def _gains(margin: float | None, *values: float) -> list[dict]:
    margins = {} if margin is None else {"whole_video_margin": margin, "negative_margin": 2 * margin}
    return [
        {"step": 10 * number, "video_gain": {"nats": value, "reward": -value, **margins}}
        for number, value in enumerate(values, start=1)
    ]


def test_what_the_video_tells_has_panels_of_its_own_with_the_smaller_margin_once():
    runs = {"a": _lines(1.0) + _gains(0.1, 0.0, 0.3), "b": _lines(1.0) + _gains(0.1, 0.2), "c": _lines(1.0)}
    panels = _panels(draw_curves(runs))
    assert list(panels)[-2:] == ["gain of the video, nats (dashed: margin)", "gain of the video, reward"]
    first, second, margin = panels["gain of the video, nats (dashed: margin)"].get_lines()
    assert list(first.get_xdata()) == [10, 20] and list(first.get_ydata()) == [0.0, 0.3]
    assert second.get_label() == "b" and set(margin.get_ydata()) == {0.1} and margin.get_linestyle() == "--"
    assert [line.get_label() for line in panels["gain of the video, reward"].get_lines()] == ["a", "b"]


def test_where_no_margin_is_asked_for_none_is_drawn():
    panels = _panels(draw_curves({"a": _lines(1.0) + _gains(None, 0.1)}))
    assert len(panels["gain of the video, nats (dashed: margin)"].get_lines()) == 1


@pytest.mark.parametrize("runs", [{}, {"young": []}, {"a": _lines(1.0), "young": []}])
def test_run_without_a_line_is_refused(runs):
    with pytest.raises(ValueError, match="no line of training in (nothing|young); train a few steps first"):
        draw_curves(runs)
