"""A page of answers: one file that loads nothing, with every name in its place."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pps_fast import load
from pps_fast.ground.page import page_of, write_page
from tests.support.eval_fakes import DATA
from tests.support.grounders import network_run
from tests.support.pages import HOSTILE, Page, asked


def test_every_answer_of_every_sentence_is_on_the_page_and_the_ranked_videos_in_their_order() -> None:
    grounder, videos, answers = asked(("a", "b", "c", "d"), top=6, sentences=3)
    page = Page(page_of(grounder, videos, answers, about="model m"))
    assert len(page.all("button", "answer")) == sum(map(len, answers)) == 18
    order = [moment.video for answer in answers for moment in answer[:4]]
    assert page.text_of("bdi") == order and len(set(order)) == 4
    assert page.text_of("title") == ["3 sentences about 4 videos"] and "model m" in page.text_of("p")
    links = [link["href"] for link in page.all("a")]
    assert links == [f"#{part['id']}" for part in page.all("section")]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {button["data-bar"] for button in page.all("button")} <= set(ids)
    assert len(page.all("path", "curve")) == 12


def test_a_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    grounder, videos, answers = asked(("a",))
    text = page_of(grounder, videos, answers, addresses={"a": "videos/a.mp4"})
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#stripes)", text)
    page = Page(text)
    (script,) = page.text_of("script")
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{sha256}'" in policy
    sources = {attributes["src"] for _, attributes in page.elements if "src" in attributes}
    assert sources == {"videos/a.mp4"} and not page.all("link")


def test_hostile_names_and_sentences_stay_text() -> None:
    grounder, videos, answers = asked(HOSTILE, top=len(HOSTILE), sentences=2)
    plain = page_of(*asked(tuple("abcdefghi"), top=len(HOSTILE), sentences=2))
    addresses = dict.fromkeys(HOSTILE, HOSTILE[0])
    for hostile in HOSTILE:
        changed = [replace(answer, unknown_words=(hostile,)) for answer in answers]
        # the sentence is read again for its curve, and must have a known word
        changed[0] = replace(changed[0], sentence=f"{changed[0].sentence} {hostile}")
        text = page_of(grounder, videos, changed, addresses=addresses, about=hostile)
        page, expected = Page(text), Page(plain)
        # neither elements nor attributes that plain names do not have, but for the player and the notes
        for tag in ("script", "style", "button", "article", "svg", "textarea", "title"):
            assert len(page.all(tag)) == len(expected.all(tag)), tag
        assert page.text_of("script") == expected.text_of("script")
        assert page.text_of("style") == expected.text_of("style")
        known = {name for _, attributes in expected.elements for name in attributes} | {
            "src",
            "controls",
            "playsinline",
            "preload",
        }
        assert {name for _, attributes in page.elements for name in attributes} <= known | {"data-src"}
        assert any(hostile.strip() in part for part in page.text_of("h2"))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_title_is_the_sentence_whatever_is_in_it(hostile: str) -> None:
    grounder, videos, (answer,) = asked(("a",))
    sentence = f"{answer.sentence} {hostile}"
    page = Page(page_of(grounder, videos, [replace(answer, sentence=sentence)]))
    assert page.text_of("title") == [sentence] and len(page.all("title")) == 1


def test_without_a_file_the_page_says_that_the_timelines_work_alone() -> None:
    grounder, videos, answers = asked(("a", "b"))
    assert "the timelines work alone" in page_of(grounder, videos, answers)
    assert not Page(page_of(grounder, videos, answers)).all("video")
    with_one = page_of(grounder, videos, answers, addresses={"b": "b.mp4"})
    assert "the timelines work alone" not in with_one and with_one.count("No file of this video is known") == 1
    assert Page(with_one).all("video")[0]["src"] == "b.mp4"


def test_a_model_without_match_says_so_and_shows_its_proposals() -> None:
    run, config = network_run("tiny")
    grounder = load(run)
    videos = [grounder.encode(DATA.features[0][:, [0] * config.data.planted.frame_dim], name="v")]
    text = page_of(grounder, videos, grounder.search(videos, [DATA.sentences[0]], top=2))
    page = Page(text)
    assert "No match and no clarity" in text and not page.all("path", "curve")
    num_parts = config.proposals.num_proposals * (config.proposals.num_proposals + 1) // 2
    assert len(page.all("path", "mixture")) == config.proposals.num_proposals
    # a proposal of one component is its own only part, and not drawn twice
    assert len(page.all("path", "part")) == num_parts - 1


@pytest.mark.parametrize("method", ["tiny", "aligned"])
def test_of_a_long_video_every_answer_has_its_proposal_whatever_window_it_is_in(method: str) -> None:
    grounder = load(network_run(method)[0])
    frames = np.random.default_rng(0).normal(size=(64, grounder.sizes.frame_dim))
    video = grounder.encode(frames, duration_s=64.0, name="v", segment_seconds=16.0)
    assert len(video.start) > 4
    page = Page(page_of(grounder, [video], grounder.search([video], [DATA.sentences[0]], top=6)))
    labels = [text for text in page.text_of("b") if text.startswith("answer")]
    assert labels == [f"answer {rank}" for rank in range(1, 7)] and "no answer" not in page.text_of("div")
    assert len(page.all("path", "mixture")) == 6 and len(page.all("path", "curve")) == (method == "aligned")


def test_videos_must_have_names_that_tell_them_apart() -> None:
    grounder, videos, answers = asked(("a", "a"))
    with pytest.raises(ValueError, match="several videos have the same name"):
        page_of(grounder, videos, answers)


def test_a_page_is_replaced_by_a_page_and_names_its_videos_relative_to_itself(tmp_path: Path) -> None:
    grounder, videos, answers = asked(("a", "b\udcff"), top=2)
    page = tmp_path / "out" / "page.html"
    page.parent.mkdir()
    for _ in range(2):
        write_page(page, grounder, videos, answers, video_files={"a": tmp_path / "videos" / "a b.mp4"})
        text = page.read_text(encoding="utf-8")
        assert 'data-src="../videos/a%20b.mp4"' in text and "b?" in text
    page.write_text("notes of mine")
    with pytest.raises(ValueError, match="no page of this program"):
        write_page(page, grounder, videos, answers)
    assert page.read_text() == "notes of mine"
