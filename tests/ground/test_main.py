"""python -m pps_fast.ground: questions on the command line, of models of `align` and `train`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.cli import parse
from pps_fast.data.prepared import write_prepared
from pps_fast.data.store import Store
from pps_fast.ground.__main__ import PROGRAM, main
from pps_fast.ground.grounder import load
from pps_fast.ground.options import with_sentences
from pps_fast.prepare.readers.extracted import FORMAT
from pps_fast.train.closed_form import fit_in_closed_form
from tests.support.eval_fakes import DATA, SPLITS
from tests.support.grounders import ALIGNMENT, alignment_run, color_run, network_run
from tests.support.videos import noisy_frames, require_video_extra, write_video

SENTENCE = DATA.sentences[0]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    np.save(tmp_path / "clip.npy", DATA.features[0])
    return tmp_path / "clip.npy"


def test_one_video_is_asked_in_a_table(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(alignment_run()), "--features", str(video), "--duration", "30"]
    assert main([*options, SENTENCE, "a yak opens the door"]) == 0
    printed = capsys.readouterr().out
    assert SENTENCE in printed and "does not know: yak" in printed and "ms for a sentence" in printed
    assert "1 video encoded" in printed and " s  " in printed


def test_a_sentence_without_a_known_word_does_not_end_the_others(
    video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(alignment_run()), "--features", str(video), "--jsonl"]
    assert main([*options, "zebrafish swim", SENTENCE]) == 1
    streams = capsys.readouterr()
    assert [json.loads(line)["sentence"] for line in streams.out.splitlines()] == [SENTENCE]
    assert "error: not searched: 'zebrafish swim': no word that the model knows" in streams.err
    assert main([*options, "zebrafish swim", "yak"]) == 2
    assert "error: 'zebrafish swim': no word that the model knows" in capsys.readouterr().err


def test_all_videos_of_a_file_are_searched_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prepared(tmp_path / "data.h5", DATA)
    options = ["--model", str(alignment_run()), "--features", str(tmp_path / "data.h5"), "--top", "3"]
    assert main([*options, "--json", SENTENCE]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["num_videos"] == 40 and record["ms_per_query"] > 0 and record["no_match"] is None
    (answer,) = record["answers"]
    assert len({moment["video"] for moment in answer["moments"]}) == 3 and answer["is_found"] in (True, False)
    assert main([*options, "--jsonl", "--min-match", "1.0", SENTENCE, SENTENCE]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["is_found"] for line in lines] == [False, False]


def test_a_search_beyond_the_free_memory_is_said_or_refused_before_videos_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prepared(tmp_path / "data.h5", DATA)
    options = ["--model", str(alignment_run()), "--features", str(tmp_path / "data.h5"), "--json", SENTENCE]
    needed = 2 * 4 * DATA.features.size
    monkeypatch.setattr("pps_fast.devices.free_memory_of", lambda device: needed - 1)
    assert main(options) == 0
    assert "a search in 40 videos needs about 30.0 KiB of memory, " in capsys.readouterr().err
    monkeypatch.setattr("pps_fast.devices.free_memory_of", lambda device: needed // 5)
    assert main(options) == 2
    assert "are free; search parts of the file, or one video with --video" in capsys.readouterr().err


def test_a_model_with_networks_says_that_it_has_no_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, config = network_run("tiny")
    np.save(tmp_path / "v.npy", np.ones((9, config.data.planted.frame_dim)))
    assert main(["--model", str(run), "--features", str(tmp_path / "v.npy"), SENTENCE]) == 0
    printed = capsys.readouterr()
    assert "cannot tell whether a sentence is about a video at all" in printed.err and " % " in printed.out


def test_sentences_may_follow_the_features(video: Path) -> None:
    words = [str(video), "a:no/x.npy", "person opens the door.", "no.npy", "laughing"]
    parsed = with_sentences(parse(PROGRAM, ["--model", "run", "--features", *words]))
    assert parsed.sentences == ("person opens the door.", "laughing")
    # what looks like a path is one, so that a slip in it is told
    assert parsed.features == (video, Path("a:no/x.npy"), Path("no.npy"))
    (video.parent / "other dir").mkdir()
    parsed = with_sentences(
        parse(PROGRAM, ["first one", "--model", "r", "--features", str(video.parent / "other dir")])
    )
    assert parsed.sentences == ("first one",) and parsed.features == (video.parent / "other dir",)


def test_sources_are_joined_in_the_order_of_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [{"source": "a", "width": 4}, {"source": "b", "width": 2}]
    data = replace(DATA, recipe={"sources": sources, "joining": "side by side"})
    fit_in_closed_form(ALIGNMENT, Store(data), SPLITS, tmp_path / "run", resume=False, progress=False)
    for name, part in (("a", slice(None, 4)), ("b", slice(4, None))):
        np.save(tmp_path / f"{name}.npy", DATA.features[0][:, part])
    paths = [f"{name}:{tmp_path / name}.npy" for name in ("a", "b")]
    printed = []
    for order in (paths, paths[::-1]):
        assert main(["--model", str(tmp_path / "run"), "--jsonl", SENTENCE, "--features", *order]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and '"match"' in printed[0]
    assert main(["--model", str(tmp_path / "run"), "--features", paths[0], "--json", SENTENCE]) == 2
    said = "video a: frames: width 4, the model was trained with features of width 6 (a 4 + b 2, joined)"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sentence-encoder", "no/name", SENTENCE], "sentence encoder no/name: "),
        ([], "sentences: none"),
        (["--json", "--jsonl", SENTENCE], "--json and --jsonl: choose one"),
        (["--video-root", ".", SENTENCE], "--video-root: is read for a page alone"),
        (["--html", "no/page.html", SENTENCE], "--html no/page.html: its folder is not there"),
        (["--html", "page.html", "--video-root", "no", SENTENCE], "--video-root no: no folder"),
        (["--duration", "0", SENTENCE], "--duration 0.0: expected a number above 0"),
        (["--top", "0", SENTENCE], "--top 0"),
        (["--top", str(2**63), SENTENCE], f"--top {2**63}: expected 1 to 1,000"),
        (["--segment-seconds", "5", SENTENCE], "length of the video is unknown"),
        (["yak"], "no word that the model knows"),
    ],
)
def test_bad_questions_are_one_line(options, message: str, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(alignment_run()), "--features", str(video), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_page_is_written_and_names_the_files_of_the_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prepared(tmp_path / "data.h5", DATA)
    (tmp_path / "videos").mkdir()
    for name in DATA.video_ids:
        (tmp_path / "videos" / f"{name}.mp4").touch()
    page = tmp_path / "page.html"
    options = ["--model", str(alignment_run()), "--features", str(tmp_path / "data.h5"), "--html", str(page)]
    assert main([*options, "--video-root", str(tmp_path / "videos"), "--json", SENTENCE]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert f"page: {page}, which plays 40 of 40 videos" in printed.err
    text = page.read_text()
    for moment in record["answers"][0]["moments"]:
        assert f'data-src="videos/{moment["video"]}.mp4"' in text
        assert f'data-start="{moment["start"]:.6f}"' in text
    assert main([*options, SENTENCE]) == 0 and "the timelines work alone" in page.read_text()


def _model_of_colors(folder: Path) -> tuple[Path, list[Path]]:
    """Fits an alignment to features of small videos by the toy encoder; returns model and videos."""
    require_video_extra()
    paths = [write_video(folder / f"{name}.mp4", noisy_frames(40, seed)) for seed, name in enumerate("abc")]
    return color_run(folder / "run"), paths


def test_video_files_are_encoded_as_the_training_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, paths = _model_of_colors(tmp_path)
    assert main(["--model", str(model), str(paths[0]), SENTENCE, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["videos"] == str(paths[0])
    (moment, *_) = alone["answers"][0]["moments"]
    # features that say themselves that another encoder made them
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"], file.attrs["recipe"] = FORMAT, json.dumps({"encoder": "openai/clip@1"})
        file["a"] = np.ones((3, 112), dtype=np.float32)
        file["a"].attrs["duration_s"] = 3.0
    assert main(["--model", str(model), "--features", str(tmp_path / "other.h5"), SENTENCE]) == 2
    assert "other.h5: its features were made by the encoder openai/clip@1, those of the" in capsys.readouterr().err
    assert moment["video"] == "a" and 0 <= moment["start_s"] < moment["end_s"] <= 4.0
    page = tmp_path / "page.html"
    assert main(["--model", str(model), "--videos", str(tmp_path), "--cache", "--html", str(page), SENTENCE]) == 0
    assert "plays 3 of 3 videos" in capsys.readouterr().err and (tmp_path / "b.mp4.features.npz").is_file()
    # in Python
    answer = load(model).ground(str(paths[0]), SENTENCE)
    assert answer[0].start_s == moment["start_s"] and answer[0].video == "a"


def test_a_video_that_cannot_be_used_is_named_and_the_others_are_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, paths = _model_of_colors(tmp_path)
    paths[1].write_bytes(b"no video")
    assert main(["--model", str(model), "--videos", str(tmp_path), SENTENCE]) == 1
    printed = capsys.readouterr()
    assert "2 videos encoded" in printed.out and "error: not searched: " in printed.err and "b.mp4" in printed.err
    assert main(["--model", str(model), str(paths[1]), SENTENCE]) == 2
    assert "b.mp4: no video that can be opened" in capsys.readouterr().err
    assert main(["--model", str(model), "--videos", str(tmp_path), "--video", "d", SENTENCE]) == 2
    assert "--video d: not among the videos a, b, c" in capsys.readouterr().err
    assert main(["--model", str(alignment_run()), str(paths[0]), SENTENCE]) == 2
    assert "does not say which encoder made the features" in capsys.readouterr().err
