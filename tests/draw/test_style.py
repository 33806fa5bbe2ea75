"""The house's look does not depend on a user's settings, leaves them alone, and gives the same bytes every time."""

from __future__ import annotations

import sys

import pytest

from pps_fast.draw.style import in_style, legend, new_figure, render, require_matplotlib, title


def test_missing_matplotlib_is_refused_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"matplotlib, which is not installed; .*pip install 'pps_fast\[plot\]'"):
        require_matplotlib()
    with pytest.raises(ValueError, match="which is not installed"):
        in_style(lambda: new_figure(1.0))()


@in_style
def _picture():
    figure = new_figure(2.0)
    rows = figure.subplots(2, 1)
    for axes in rows:
        axes.plot([0, 1], [0, 1], label="a line")
        axes.fill_between([0, 1], [0, 1], label="an area")
    title(rows[0], "costs $5 and $6 a_b^c", "quiet")
    legend(figure, rows)
    return figure


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_same_picture_has_the_same_bytes_and_no_date(kind, start):
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    first, *others = [render(_picture(), kind) for _ in range(3)]
    assert others == [first] * 2 and first.startswith(start)
    assert b"dc:date" not in first and b"matplotlib.org" not in first


def test_last_bits_of_the_layout_do_not_count():
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    files = []
    for noise in (0.0, 1e-14):
        figure = _picture()
        figure.set_layout_engine(PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=False))
        for axes, bottom in zip(figure.axes, (0.6, 0.1), strict=True):
            axes.set_position([0.1 + noise, bottom + noise, 0.8 + noise, 0.3])
        files.append(render(figure, "svg"))
    assert files[0] == files[1]


def test_settings_of_the_user_neither_count_nor_change():
    matplotlib = pytest.importorskip("matplotlib", reason="needs the plot extra")
    plain = render(_picture(), "png")
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 30.0, "axes.facecolor": "black"}):
        assert render(_picture(), "png") == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_long_heading_makes_room_for_itself():
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    plain, short, long = (new_figure(2.0, heading).get_figheight() for heading in ("", "word", "word " * 40))
    assert plain == short == 2.0 < long


def test_no_global_figure_is_made():
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    from matplotlib import _pylab_helpers

    _picture()
    assert _pylab_helpers.Gcf.get_all_fig_managers() == []


def test_legend_names_each_thing_once():
    pytest.importorskip("matplotlib", reason="needs the plot extra")
    (legend,) = _picture().legends
    assert [text.get_text() for text in legend.get_texts()] == ["a line", "an area"]
