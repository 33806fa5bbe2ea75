"""make demo-video: what it draws is what its sentences say, and the whole way ends with answers near the truth."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from docs.demo_video import COLORS, FPS, Event, clips_with, draw, frames_of, main, plan, write_texts
from pps_fast.features.decode import open_video
from tests.support.documents import ROOT
from tests.support.videos import require_video_extra

require_video_extra()


def test_events_of_a_clip_follow_one_another_in_colors_of_their_own() -> None:
    clips = plan(50, seed=3)
    assert [clip.name for clip in plan(50, seed=3)] == [clip.name for clip in clips] and plan(50, seed=3) == clips
    for clip in clips:
        times = [time for event in clip.events for time in (event.start_s, event.end_s)]
        assert times == sorted(times) and 0 <= times[0] and times[-1] <= clip.duration_s
        assert len({event.color for event in clip.events}) == len(clip.events) in (2, 3)


def test_a_shape_is_seen_in_its_color_during_its_event_alone() -> None:
    (clip,) = plan(1, seed=0)
    frames = np.stack(list(frames_of(clip, np.random.default_rng(0))))
    times = (np.arange(len(frames)) + 0.5) / FPS
    for event in clip.events:
        is_color = (frames == COLORS[event.color]).all(axis=3).sum(axis=(1, 2))
        inside = (event.start_s <= times) & (times < event.end_s)
        assert (is_color[inside] > 50).all() and not is_color[~inside].any()


def test_the_file_has_the_frames_and_the_length(tmp_path: Path) -> None:
    (clip,) = plan(1, seed=1)
    draw(clip, tmp_path / "a.mp4", seed=0)
    event = clip.events[0]
    with open_video(tmp_path / "a.mp4") as video:
        before, during = video.frames_at([0.0, (event.start_s + event.end_s) / 2])
        assert video.duration_s == clip.duration_s
    # compression leaves a color about where it was
    nearest = np.abs(during.astype(int) - COLORS[event.color]).sum(axis=2).min()
    assert nearest < 60 < np.abs(before.astype(int) - COLORS[event.color]).sum(axis=2).min()


def test_training_pairs_have_no_times_and_no_video_of_the_test(tmp_path: Path) -> None:
    clips = plan(20, seed=0)
    test = write_texts(tmp_path, clips, seed=0)
    train = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()
    assert train[0] == "video,sentence" and len(test) == 5
    assert not {row.split(",")[0] for row in train[1:]} & {clip.name for clip in test}
    words = {line.split()[0] for line in (tmp_path / "words.txt").read_text(encoding="utf-8").splitlines()}
    assert words >= set(Event(color="red", shape="circle", motion="grows", start_s=0, end_s=1).sentence.split())
    assert clips_with(clips[3].events[0].sentence, clips).count(clips[3].name) == 1


def test_the_whole_way_ends_with_answers_near_the_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["--out", str(out), "--videos", "40"]) == 0
    printed = capsys.readouterr().out
    for program in ("features", "prepare", "align", "ground"):
        assert f"$ python -m pps_fast.{program} " in printed
    assert printed.count("truth: ") == 4 and f"open {out / 'answers.html'} in a browser" in printed
    assert (out / "answers.html").is_file()
    table = json.loads((out / "model" / "evaluation_test.json").read_text(encoding="utf-8"))
    text = json.dumps(table)
    assert "shuffled queries" in text
    difference = re.search(r"finds moments better than chance, in points of mIoU by ([\d.]+)", printed)
    assert difference is not None and float(difference[1]) > 10


def test_a_folder_that_is_there_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    assert "is there; name another" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_make_runs_the_script_in_an_environment_with_the_extra() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "--no-print-directory", "--dry-run", "demo-video", "ARGS=--videos 9", "VENV=build/no-such-venv"]
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ".[video]" in recipe and recipe.rstrip().endswith("docs/demo_video.py --videos 9")
