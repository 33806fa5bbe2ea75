"""Pictures of a page: bars apart from each other, curves within their frame, times in plain form."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from pps_fast.ground.evidence import ProposalShape
from pps_fast.ground.page_plots import answer_bars, clock, curve_plot, proposal_plot, time_scale


def _shares(svg: str, tag: str, *names: str) -> list[tuple[float, ...]]:
    """Returns attributes in percent of all elements with a tag, as fractions."""
    elements = ElementTree.fromstring(svg).iter(tag)
    return [tuple(float(element.get(name, "").rstrip("%")) / 100 for name in names) for element in elements]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00.0"),
        (7.46, "0:07.5"),
        (59.96, "1:00.0"),
        (3599.97, "1:00:00.0"),
        (3600, "1:00:00.0"),
        (36061.5, "10:01:01.5"),
    ],
)
def test_a_time_is_rounded_once_and_carries_over(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_bars_of_answers_keep_apart_and_stand_at_their_times() -> None:
    spans = [(1, "bar-1", 0.2, 0.6), (2, "bar-2", 0.1, 0.3), (3, "bar-3", 0.6, 0.9), (4, "bar-4", 0.35, 0.5)]
    picture = answer_bars(spans)
    bars = {bar.get("id"): bar for bar in ElementTree.fromstring(picture).iter("rect")}
    for _, name, start, end in spans:
        assert float(bars[name].get("x").rstrip("%")) == pytest.approx(100 * start)
        assert float(bars[name].get("width").rstrip("%")) == pytest.approx(100 * (end - start))
    lanes = {name: bar.get("y") for name, bar in bars.items()}
    for index, (_, one, start, end) in enumerate(spans):
        for _, other, first, last in spans[index + 1 :]:
            assert lanes[one] != lanes[other] or end <= first or last <= start
    assert len(set(lanes.values())) == 2
    assert [bar.get("class") for bar in bars.values()].count("bar first") == 1
    assert "answer 3 from 60 to 90 %" in picture


def test_a_curve_fills_its_scale_and_a_flat_one_stays_in_the_middle() -> None:
    points, scores = np.array([0.1, 0.5, 0.9]), np.array([1.0, 5.0, 3.0])
    picture = curve_plot((points, scores), 1.0, 5.0, (0.4, 0.6))
    assert 'd="M100 1000L500 0L900 500"' in picture and "highest is at 50 %" in picture
    assert _shares(picture, "rect", "x", "width") == [pytest.approx((0.4, 0.2))]
    assert 'd="M100 500L500 500L900 500"' in curve_plot((points, np.ones(3)), 1.0, 1.0, (0, 1))


def test_a_proposal_of_a_window_stands_within_it() -> None:
    shape = ProposalShape(
        start=0.25,
        end=0.75,
        mask=np.array([0.0, 1.0, 0.0]),
        centers=np.array([0.4, 0.6]),
        weights=np.array([0.75, 0.25]),
        components=np.array([[0.0, 0.75, 0.0], [0.0, 0.25, 0.0]]),
    )
    picture = proposal_plot(shape, 0.5, 1.0)
    assert picture.count('class="part"') == 2 and 'class="mixture" d="M500 1000L750 0L1000 1000"' in picture
    assert _shares(picture, "circle", "cx") == [pytest.approx((0.7,)), pytest.approx((0.8,))]
    radii = [float(radius) for radius in re.findall(r' r="([\d.]+)"', picture)]
    assert radii[0] > radii[1]
    assert _shares(picture, "line", "x1", "x2")[1] == pytest.approx((0.625, 0.875))
    assert "62 to 88 % of the video, of 2 parts" in picture


@pytest.mark.parametrize("duration_s", [0.4, 3.0, 8.0, 61.0, 5400.0, 86400.0 * 3, 1e7])
def test_marks_of_time_are_few_round_and_at_their_times(duration_s: float) -> None:
    picture = time_scale(duration_s)
    texts = [text.text for text in ElementTree.fromstring(picture).iter("text")]
    assert 2 <= len(texts) <= 7 and texts[0].startswith("0:00")
    assert all(0 <= share <= 1 for (share,) in _shares(picture, "text", "x"))
    last = [float(part) for part in texts[-1].split(":")]
    seconds = sum(part * 60**power for power, part in enumerate(reversed(last)))
    assert _shares(picture, "text", "x")[-1][0] == pytest.approx(seconds / duration_s, abs=1e-3)


def test_without_a_length_the_scale_is_in_percent() -> None:
    assert [text for text in re.findall(r">([^<]+)</text>", time_scale(None))] == [
        "0 %",
        "25 %",
        "50 %",
        "75 %",
        "100 %",
    ]
