"""Files of videos, how a page names them, and what a page never replaces."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from pps_fast.features.decode import VIDEO_ENDINGS
from pps_fast.ground.page_links import SUFFIXES, links, require_page, require_root, video_files
from tests.support.pages import HOSTILE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.WEBM", "a.txt", "deep/a.mkv", "deep/c.mov", "v.x.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "secret.mp4").touch()
    return tmp_path / "videos"


def test_a_video_has_the_name_of_its_file_or_its_path_and_the_least_deep_one_is_taken(root: Path) -> None:
    names = ["a", "b", "c", "deep/a", "deep/c.mov", "v.x", "v.x.mp4", "b.WEBM", "gone", "../secret", "a.txt"]
    files = video_files(root, names)
    assert {name: path.relative_to(root).as_posix() for name, path in files.items()} == {
        "a": "a.mp4", "b": "b.WEBM", "c": "deep/c.mov", "deep/a": "deep/a.mkv", "deep/c.mov": "deep/c.mov",
        "v.x": "v.x.mp4", "v.x.mp4": "v.x.mp4", "b.WEBM": "b.WEBM",
    }  # fmt: skip


def test_a_link_leads_from_the_page_to_the_file_whatever_its_name(tmp_path: Path) -> None:
    names = [name.replace("/", "|").replace("\0", "") for name in HOSTILE] + ["a b", "javascript:x", "é"]
    for folder in ("videos", "out/videos"):
        files = {str(index): tmp_path / folder / name for index, name in enumerate(names)}
        page = tmp_path / "out" / "page.html"
        for index, link in links(page, files).items():
            parts = urlsplit(link)
            assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "") and link.isascii()
            assert not set(link) & set("\"'<>& \n")
            target = os.path.normpath(os.path.join(os.fsencode(page.parent), unquote_to_bytes(link)))
            assert target == os.fsencode(files[index])


def test_a_page_takes_the_name_of_a_page_or_an_empty_file_and_no_other(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    require_page(page)
    page.write_text('<meta name="generator" content="pps_fast 0.1.0">')
    require_page(page)
    page.write_text("")
    require_page(page)
    page.write_text("<p>my own page about pps_fast</p>")
    with pytest.raises(ValueError, match="no page of this program; name another file"):
        require_page(page)
    with pytest.raises(ValueError, match="a folder, pipe or device; name a file"):
        require_page(tmp_path)
    with pytest.raises(ValueError, match="its folder is not there"):
        require_page(tmp_path / "no" / "page.html")


def test_a_folder_of_videos_must_be_there(tmp_path: Path) -> None:
    require_root(None)
    with pytest.raises(ValueError, match="--video-root .*no: no folder"):
        video_files(tmp_path / "no", ["a"])


def test_the_endings_of_videos_are_those_that_features_are_made_of() -> None:
    assert SUFFIXES == VIDEO_ENDINGS
