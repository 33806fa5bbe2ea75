"""Cards of a page: what is said of a sentence and of each video."""

from __future__ import annotations

import dataclasses

import numpy as np

from pps_fast.ground.answers import Answer, Moment
from pps_fast.ground.evidence import Evidence, ProposalShape
from pps_fast.ground.page_cards import Card, note, section
from pps_fast.ground.segments import EncodedVideo
from tests.support.pages import HOSTILE, Page


def _shape(start: float, end: float, num_parts: int = 1) -> ProposalShape:
    weights = np.full(num_parts, 1 / num_parts)
    mask = np.ones(5)
    return ProposalShape(
        start=start, end=end, mask=mask, centers=weights, weights=weights, components=weights[:, None] * mask
    )


def _moment(start: float, end: float, match: float | None = 0.9, seconds: bool = True) -> Moment:
    times = {"start_s": 20 * start, "end_s": 20 * end} if seconds else {"start_s": None, "end_s": None}
    return Moment(video="v", start=start, end=end, score=1.0, match=match, clarity=match, **times)


def _card(moments: list[Moment], shapes: list[list[ProposalShape]], name: str | None = "v", **options) -> Card:
    windows = [Evidence(curve=np.arange(4.0), proposals=tuple(of_window)) for of_window in shapes]
    bounds = np.linspace(0, 1, len(shapes) + 1).tolist()
    length = 20.0 if moments[0].start_s is not None else None
    video = EncodedVideo(name=name, duration_s=length, start=bounds[:-1], end=bounds[1:], frames=None)
    values = {"number": 3, "link": None, "ranked": list(enumerate(moments, 1)), "windows": windows, **options}
    return Card(video=video, **values)


def _page(card: Card, min_match: float = 0.5, **answer) -> Page:
    moments = tuple(moment for _, moment in card.ranked)
    return Page(section(1, Answer(sentence="it rains", moments=moments, **answer), [card], min_match))


def test_an_answer_is_a_button_with_rank_times_and_how_sure_it_is() -> None:
    page = _page(_card([_moment(0.1, 0.3), _moment(0.5, 0.6)], [[_shape(0.1, 0.3), _shape(0.5, 0.6)]]))
    first, second = page.all("button", "answer")
    assert first["aria-label"] == "answer 1, 0:02.0 to 0:06.0, match 90 %, clarity 90 %" and first["type"] == "button"
    assert (float(second["data-start"]), float(second["data-end"])) == (0.5, 0.6)
    assert {first["data-bar"], second["data-bar"]} == {bar["id"] for bar in page.all("rect", "bar")}
    assert "0:10.0 – 0:12.0" in page.text_of("span") and page.text_of("b")[:2] == ["90 %", "90 %"]
    (slider,) = page.all("input")
    assert (slider["type"], slider["aria-label"], slider["aria-valuetext"]) == ("range", "position in v", "0:00.0")


def test_without_length_or_match_a_card_has_percent_and_says_nothing_of_match() -> None:
    page = _page(_card([_moment(0.1, 0.3, None, seconds=False)], [[_shape(0.1, 0.3)]]))
    assert page.all("button")[0]["aria-label"] == "answer 1, 10 % to 30 %"
    assert not page.all("p", "sure") and "data-length" not in page.all("article")[0]


def test_what_was_not_read_or_not_there_is_said() -> None:
    card = _card([_moment(0.1, 0.3, 0.3)], [[_shape(0.1, 0.3)]])
    notes = _page(card, unknown_words=("yak",), num_cut=2).text_of("p")
    for part in ("does not know: yak", "The last 2 words were not read", "Not found: no match reaches 50 %"):
        assert any(part in text for text in notes), part
    assert not any("Not found" in text for text in _page(card, min_match=0.2).text_of("p"))


def test_all_proposals_of_one_window_are_shown_and_of_several_those_that_are_answers() -> None:
    shapes = [_shape(0.2, 0.6, 2), _shape(0.1, 0.9, 3)]
    one = _page(_card([_moment(0.2, 0.6)], [shapes]))
    assert [text for text in one.text_of("b") if "answer" in text] == ["answer 1"] and "no answer" in one.text_of("div")
    assert one.text_of("summary") == ["Proposals and their parts (2)"] and "50+50 %" in one.text_of("div")
    # the second half's proposal from 20 to 60 % of it
    two = _page(_card([_moment(0.6, 0.8), _moment(0.05, 0.45)], [shapes, shapes]))
    assert [text for text in two.text_of("b") if "answer" in text] == ["answer 1", "answer 2"]
    assert "no answer" not in two.text_of("div")


def test_videos_of_a_sentence_share_the_scale_of_their_curves() -> None:
    high, low = (_card([_moment(0.2, 0.6)], [[_shape(0.2, 0.6)]], name=name) for name in ("a", "b"))
    low = dataclasses.replace(low, windows=[Evidence(curve=np.array([0.0, 0.0, 0.0, 1.5]), proposals=())])
    page = Page(section(1, Answer(sentence="x", moments=(_moment(0, 1),)), [high, low], 0.5))
    ends = [int(path["d"].split()[-1]) for path in page.all("path", "curve")]
    # the best of one video reaches the top, that of the other half of it
    assert ends == [0, 500]


def test_names_and_words_stay_text() -> None:
    for hostile in HOSTILE:
        page = _page(
            _card([_moment(0.1, 0.3)], [[_shape(0.1, 0.3)]], name=hostile, link=hostile), unknown_words=(hostile,)
        )
        shown = hostile.replace("\0", "\ufffd")
        assert "".join(page.text_of("bdi")) in (hostile, shown)
        assert page.all("article")[0]["data-src"] in (hostile, shown)
        assert hostile in page.all("input")[0]["aria-label"] or shown in page.all("input")[0]["aria-label"]
        assert len(page.all("article")) == 1 and not page.all("script")
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert Page(note("<b>")).text_of("p") == ["<b>"]
