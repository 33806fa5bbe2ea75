"""Where the videos of a demo come from: a folder of files, with or without features of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pps_fast.demo.__main__ import DemoArguments
from pps_fast.demo.sources import open_library
from tests.support.eval_fakes import DATA
from tests.support.grounders import alignment_run, color_run
from tests.support.joint_encoders import joint_folder
from tests.support.pages import Page
from tests.support.videos import gray_frames, require_video_extra, write_video


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("b.mp4", "a.webm", "notes.txt"):
        (folder / name).touch()
    return folder


def test_a_folder_alone_offers_its_videos_if_the_model_says_how_to_encode_them(videos: Path, tmp_path: Path) -> None:
    require_video_extra()
    run = color_run(tmp_path / "run")
    library = open_library(DemoArguments(model=run, videos=videos))
    assert library.names == ["a", "b"]
    with pytest.raises(ValueError, match=r"(a\.webm|b\.mp4): .*"):
        library.page(DATA.sentences[0], library.names)
    with pytest.raises(ValueError, match="does not say which encoder made the features"):
        open_library(DemoArguments(model=alignment_run(), videos=videos))


def test_features_offer_their_videos_and_the_folder_the_files_that_it_has(videos: Path, tmp_path: Path) -> None:
    features = tmp_path / "features"
    features.mkdir()
    for index, name in enumerate(("a", "c")):
        np.save(features / f"{name}.npy", DATA.features[index])
    arguments = DemoArguments(model=alignment_run(), videos=videos, features=features, frames_per_second=2.0)
    library = open_library(arguments)
    assert library.names == ["a", "c"]
    page = Page(library.page(DATA.sentences[0], ["a", "c"])[0])
    cards = dict(zip(page.text_of("bdi"), page.all("article"), strict=True))
    assert cards["a"]["data-src"].endswith("/videos/a.webm") and "data-src" not in cards["c"]
    assert float(cards["a"]["data-length"]) == len(DATA.features[0]) / 2


def test_without_a_model_a_joint_encoder_answers(tmp_path: Path) -> None:
    require_video_extra()
    folder = joint_folder(tmp_path / "clip")
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", gray_frames(40), fps=4)
    library = open_library(DemoArguments(zero_shot=str(folder), videos=tmp_path / "videos"))
    text, failures = library.page("a dog", ["a"])
    page = Page(text)
    assert not failures and "nothing was trained" in text and len(page.all("path", "curve")) == 1
    assert page.all("button", "answer")[0]["aria-label"].startswith("answer 1, 0:0")
