"""Videos of a demo: encoded once, when they are first asked; dropped ones are nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pps_fast import load
from pps_fast.demo.library import Library, address
from pps_fast.ground.segments import EncodedVideo
from tests.support.eval_fakes import DATA
from tests.support.grounders import alignment_run
from tests.support.pages import Page

SENTENCE = DATA.sentences[0]


@pytest.fixture
def encoded() -> list[str]:
    return []


@pytest.fixture
def library(encoded: list[str]) -> Library:
    grounder = load(alignment_run())

    def encode(path: Path, name: str) -> EncodedVideo:
        encoded.append(name)
        if path.suffix == ".bad":
            raise ValueError(f"{path.name}: no video")
        return grounder.encode(DATA.features[len(encoded)], duration_s=9.0, name=name)

    files = {"a": Path("/videos/a.mp4"), "b": Path("/videos/b c&.mp4"), "bad": Path("/videos/x.bad")}
    ready = [grounder.encode(DATA.features[0], duration_s=9.0, name="ready")]
    return Library(grounder, files, encode, encoded=ready, top=3)


def test_a_video_is_encoded_once_and_those_of_features_never(library: Library, encoded: list[str]) -> None:
    assert library.names == ["a", "b", "bad", "ready"]
    for _ in range(2):
        library.page(SENTENCE, ["a", "ready"])
    library.page(SENTENCE, ["b"])
    assert encoded == ["a", "b"]


def test_a_page_has_the_videos_that_were_asked_at_the_addresses_where_they_are_served(library: Library) -> None:
    page = Page(library.page(f"  {SENTENCE} ", ["a", "b", "ready"])[0])
    cards = dict(zip(page.text_of("bdi"), page.all("article"), strict=True))
    assert cards["b"]["data-src"] == "gradio_api/file=/videos/b%20c%26.mp4" == address(Path("/videos/b c&.mp4"))
    assert "data-src" not in cards["ready"] and page.all("body")[0]["class"] == "framed"
    assert page.text_of("h2") == [f"“{SENTENCE}”"]


def test_a_dropped_video_has_a_name_of_its_own_and_is_not_among_those_of_everyone(library: Library) -> None:
    assert library.add(Path("/tmp/1/new.mp4")) == "new" == library.add(Path("/tmp/1/new.mp4"))
    assert library.add(Path("/tmp/2/new.mp4")) == "new (2)"
    assert library.add(Path("/tmp/3/ready.mp4")) == "ready (2)"
    assert library.add(Path("/videos/a.mp4")) == "a"
    assert library.names == ["a", "b", "bad", "ready"]
    assert all(library.has(name) for name in ("new", "new (2)", "ready (2)", "ready")) and not library.has("gone")
    assert Page(library.page(SENTENCE, ["new (2)"])[0]).all("article")[0]["data-src"].endswith("/tmp/2/new.mp4")


def test_what_cannot_be_asked_is_a_sentence(library: Library, encoded: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match=r"x\.bad: no video"):
            library.page(SENTENCE, ["bad"])
    # a failure is not kept: the file may be mended
    assert encoded == ["bad", "bad"]
    with pytest.raises(ValueError, match="no sentence; type one"):
        library.page("  ", ["a"])


def test_of_several_videos_those_that_cannot_be_used_are_left_out_and_named(library: Library) -> None:
    page, failures = library.page(SENTENCE, ["bad", "ready"])
    assert failures == ["x.bad: no video"] and Page(page).text_of("bdi") == ["ready"]
