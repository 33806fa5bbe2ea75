"""The page of the demo without a browser: what it shows for an answer, and for what is none."""

from __future__ import annotations

import sys
from html import unescape
from pathlib import Path

import pytest

from pps_fast import load
from pps_fast.demo.app import ALL, _as_text, answer_of, import_gradio
from pps_fast.demo.library import Library
from tests.support.eval_fakes import DATA
from tests.support.grounders import alignment_run
from tests.support.pages import HOSTILE, Page


@pytest.fixture
def library() -> Library:
    grounder = load(alignment_run())
    encoded = [grounder.encode(DATA.features[index], duration_s=9.0, name=name) for index, name in enumerate("ab")]
    return Library(grounder, {"a": Path("/videos/a.mp4")}, lambda path, name: encoded[0], encoded=encoded)


def test_an_answer_is_a_whole_page_in_a_frame(library: Library) -> None:
    for name, videos in (("a", {"a"}), (ALL, {"a", "b"})):
        for hostile in HOSTILE:
            shown = answer_of(library, name, f"{DATA.sentences[0]} {hostile}")
            (frame,) = Page(shown + "</iframe>" * shown.count("<iframe>")).all("iframe")
            inside = Page(str(frame["srcdoc"]))
            assert set(inside.text_of("bdi")) == videos and len(inside.all("script")) == 1


def test_what_cannot_be_asked_is_told_as_text(library: Library) -> None:
    for name, sentence, text in (
        (None, "x", "No video; choose one"),
        ("<b>", "x", "Video <b>: not one of those that are offered"),
        ("a", " ", "No sentence; type one"),
        ("a", "yak <i>", "no word that the model knows"),
    ):
        page = Page(answer_of(library, name, sentence))
        assert text in "".join(page.text_of("p")) and not page.all("b") and not page.all("i")


def test_words_are_no_markdown() -> None:
    assert _as_text("a_b*[x](y)") == r"a\_b\*\[x\]\(y\)"
    assert unescape(_as_text("plain words, 3")) == "plain words, 3"


def test_without_gradio_the_demo_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match="needs the library gradio; install it with `pip install"):
        import_gradio()
