"""python -m pps_fast.features: from video files to a packed file and a model that knows how its features were made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pps_fast.data.prepared import read_prepared
from pps_fast.features.__main__ import main
from pps_fast.prepare.__main__ import main as prepare
from tests.support.documents import ROOT
from tests.support.frame_encoders import clip_folder
from tests.support.videos import gray_frames, noisy_frames, require_video_extra, write_audio, write_video

require_video_extra()


def test_a_folder_becomes_a_packed_file_without_any_lengths_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index, name in enumerate(("a", "b", "c")):
        write_video(folder / f"{name}.mp4", noisy_frames(30 + 10 * index, seed=index))
    encoder = clip_folder(tmp_path / "clip")
    out = tmp_path / "f.h5"
    assert main([str(folder), "--out", str(out), "--encoder", str(encoder), "--fps", "2"]) == 0
    assert "3 encoded, 12 s" in capsys.readouterr().out
    rows = "".join(f"{name}.mp4,a dog,{split}\n" for name, split in (("a", "train"), ("b", "train"), ("c", "test")))
    (tmp_path / "pairs.csv").write_text(f"video,sentence,split\n{rows}", encoding="utf-8")
    (tmp_path / "words.txt").write_text("a 1 0\ndog 0 1\n", encoding="utf-8")
    options = ["--train", str(tmp_path / "pairs.csv"), "--test", str(tmp_path / "pairs.csv"), "--features", str(out)]
    options += ["--vocabulary", str(tmp_path / "words.txt"), "--num-segments", "4", "--video-suffix", ".mp4"]
    assert prepare(["--out", str(tmp_path / "data.h5"), "--protocol", "as_is", *options]) == 0
    assert "by clip@" in capsys.readouterr().out
    data = read_prepared(tmp_path / "data.h5")
    assert data.duration_s.tolist() == [3.0, 4.0, 5.0]
    extraction = data.recipe["sources"][0]["extraction"]
    assert extraction["encoder"].startswith("clip@") and extraction["fps"] == 2.0
    assert extraction["image_size"] == [32, 32]


def test_failures_are_named_and_change_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "a.mp4", gray_frames(20))
    write_audio(tmp_path / "sound.mp4")
    options = ["--out", str(tmp_path / "f.h5"), "--encoder", "color"]
    assert main([str(tmp_path / "a.mp4"), str(tmp_path / "sound.mp4"), *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.endswith("error: 1 of 2 videos failed, as told above\n")
    printed = captured.out
    assert "1 of 2 videos" in printed and "sound.mp4: no pictures, it has audio alone" in printed
    assert main([str(tmp_path / "a.mp4"), *options]) == 0
    assert "0 encoded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "videos: none"),
        (["a.mp4", "--fps", "0"], "--fps 0.0: expected a number above 0"),
        (["a.mp4", "--batch", "0"], "--batch 0: expected 1 or more"),
        (["a.mp4", "--readable", "2"], "--readable 2.0: expected a share"),
        (["none.mp4"], "none.mp4: no such file or folder"),
        (["a.mp4", "--out", "."], "--out .: a folder"),
        (["a.mp4", "--encoder", "no-such-encoder"], "encoder no-such-encoder: no folder of that name"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_video(tmp_path / "a.mp4", gray_frames(10))
    monkeypatch.chdir(tmp_path)
    began = time.perf_counter()
    assert main(["--out", "f.h5", "--encoder", "color", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    # also on a busy machine whose network swallows questions
    assert time.perf_counter() - began < 10


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "pps_fast.features", str(folder), "--out", str(folder / "f.h5"), "--encoder", "color",
            "--fps", "50"]  # fmt: skip


@pytest.fixture(scope="module")
def twelve_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(12):
        write_video(folder / f"{index:02d}.mp4", noisy_frames(100, seed=index))
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_program_continues_where_it_was(number: signal.Signals, twelve_videos: Path, tmp_path: Path) -> None:
    shutil.copytree(twelve_videos, tmp_path, dirs_exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(_command(tmp_path), env=env, stderr=subprocess.PIPE, text=True)
    parts, end = tmp_path / "f.h5.parts", time.monotonic() + 60
    while len(list(parts.glob("*.npz"))) < 2 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    finished = {part.stem for part in parts.glob("*.npz") if not part.name.startswith(".")}
    assert process.returncode == (130 if number == signal.SIGINT else -number) and 2 <= len(finished) < 12
    if number == signal.SIGINT:
        assert f"{len(finished)} of 12 videos are finished" in said and said.endswith("error: interrupted\n")
    done = subprocess.run(_command(tmp_path), env=env, capture_output=True, text=True, check=True)
    assert f"{12 - len(finished)} encoded" in done.stdout and f"{len(finished)} were there before" in done.stdout
    assert not parts.exists()
