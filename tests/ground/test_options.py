"""The options of `python -m pps_fast.ground`: what is a sentence, a video, features; what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pps_fast.cli import parse
from pps_fast.ground.__main__ import PROGRAM
from pps_fast.ground.options import GroundArguments, check_arguments, with_sentences, with_videos


def _parsed(*words: str) -> GroundArguments:
    return with_videos(with_sentences(parse(PROGRAM, ["--model", "m", *words])))


def test_a_file_of_a_video_among_the_sentences_is_a_video() -> None:
    parsed = _parsed("clips/a.mp4", "a dog barks.", "b.MKV", "laughing")
    assert parsed.videos == (Path("clips/a.mp4"), Path("b.MKV")) and parsed.sentences == ("a dog barks.", "laughing")


def test_a_sentence_that_mentions_a_file_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _parsed("somebody opens a.mp4").sentences == ("somebody opens a.mp4",)
    Path("a.clip").touch()
    assert _parsed("a.clip", "x").videos == (Path("a.clip"),)


def test_a_sentence_longer_than_names_of_files_is_one(tmp_path: Path) -> None:
    sentence = f"a person {'opens the door and ' * 20}leaves. Then it is dark"
    assert _parsed("a.mp4", sentence).sentences == (sentence,)
    parsed = _parsed("--videos", str(tmp_path), sentence)
    assert parsed.sentences == (sentence,) and parsed.videos == (tmp_path,)


def test_a_folder_among_the_sentences_is_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"one of the two; the folder {tmp_path} is taken behind --videos$"):
        check_arguments(_parsed(str(tmp_path), "a dog barks"))


def test_sentences_may_follow_the_videos(tmp_path: Path) -> None:
    parsed = _parsed("--videos", str(tmp_path), "a.mp4", "a dog barks", "laughing")
    assert parsed.videos == (tmp_path, Path("a.mp4")) and parsed.sentences == ("a dog barks", "laughing")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", " ", "a.mp4"], "sentences: an empty one; put at least one in quotes"),
        (["x"], "--videos, --features: name video files or their features"),
        (["x", "a.mp4", "--features", "f.h5"], "one of the two"),
        (["x", "a.mp4", "--duration", "3"], "--duration: an option of features, and video files tell their lengths"),
        (["x", "--features", "f.h5", "--cache"], "--cache: an option of video files; leave it out"),
        (["x", "--features", "f.h5", "--encoder", "clip"], "--encoder: an option of video files"),
        (["x", "--features", "f.h5", "--json", "--jsonl"], "choose one of them"),
        (["x", "a.mp4", "--min-match", "50"], "--min-match 50.0: expected a probability, 0 to 1"),
        (["x", "a.mp4", "--min-match", "nan"], "--min-match nan: expected"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_arguments(_parsed(*words))
