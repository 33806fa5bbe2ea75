"""Frames by time: any rate, turned upright, square pixels; what is no video is told in a sentence."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pps_fast.features import decode
from pps_fast.features.decode import is_video, open_video, videos_in
from tests.support.videos import (
    gray_frames,
    noisy_frames,
    number_of,
    require_video_extra,
    spoiled,
    turned,
    write_audio,
    write_video,
)

av = require_video_extra()


def _numbers(path: Path, times_s: list[float]) -> list[int | None]:
    with open_video(path) as video:
        return [None if frame is None else number_of(frame) for frame in video.frames_at(times_s)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_the_frame_of_a_time_is_the_last_one_that_has_begun(name: str, tmp_path: Path) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write_video(tmp_path / name, gray_frames(40), codec=codec)
    with open_video(path) as video:
        assert video.duration_s == pytest.approx(4.0, abs=0.11)
    assert _numbers(path, [0.0, 0.05, 0.1, 0.19, 2.55, 2.55, 3.85]) == [0, 0, 1, 1, 25, 25, 38]


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.webm", "a.mov"])
def test_the_length_is_that_of_the_frames_in_every_container(name: str, tmp_path: Path) -> None:
    codec = {"mpg": "mpeg2video", "webm": "libvpx"}.get(name[2:], "libx264")
    path = write_video(tmp_path / name, gray_frames(40), fps=25, codec=codec)
    with open_video(path) as video:
        assert video.duration_s == pytest.approx(1.6, abs=0.05)
    assert _numbers(path, [0.02, 0.82, 1.5]) == [0, 20, 37]


def test_a_rate_that_changes_is_followed_by_the_times(tmp_path: Path) -> None:
    times = [0, 100, 200, 5000, 5100, 9000, 9500]
    path = write_video(tmp_path / "a.mp4", gray_frames(7), times_ms=times)
    assert _numbers(path, [0.05, 0.25, 2.0, 4.9, 5.05, 7.0, 9.2]) == [0, 2, 2, 2, 3, 4, 5]


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_video_is_turned_as_it_says(clockwise: int, tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[:24, :32] = [255, 0, 0]
    pixels[24:, 32:] = [0, 0, 255]
    path = turned(write_video(tmp_path / "a.mp4", [pixels] * 5), tmp_path / "b.mp4", clockwise)
    expected = np.rot90(pixels, -clockwise // 90)
    with open_video(path) as video:
        (frame,) = video.frames_at([0.1])
    assert frame.shape == expected.shape
    # compression blurs the edges between colors
    assert np.abs(frame.astype(int) - expected).mean() < 8


def test_pixels_that_are_not_square_are_made_so() -> None:
    frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), dtype=np.uint8), format="rgb24")
    assert decode.upright(frame, 1.5).shape == (48, 96, 3)


def test_damage_in_the_middle_is_a_gap_and_not_a_long_frame(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", noisy_frames(200))
    path = spoiled(whole, tmp_path / "b.mp4", 0.4, 0.6)
    with open_video(path) as video:
        is_read = [frame is not None for frame in video.frames_at(np.arange(0.05, 20, 0.1))]
    assert all(is_read[:70]) and all(is_read[140:]) and 20 <= is_read.count(False) <= 60


def test_a_file_that_ends_early_has_no_frames_there(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", noisy_frames(100))
    path = tmp_path / "b.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with open_video(path) as video:
        is_read = [frame is not None for frame in video.frames_at(np.arange(0.05, 10, 0.1))]
    assert all(is_read[:40]) and not any(is_read[75:])


def test_the_length_follows_from_the_packets_where_the_file_does_not_tell_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", gray_frames(25))
    assert decode._scanned(av, path) == pytest.approx(2.5, abs=0.01)


def _empty_mp4(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write_audio, r"no pictures, it has audio alone"),
        (_empty_mp4, r"(no pictures|has no frames|no video that can be opened)"),
        (lambda path: path.touch(), r"no video that can be opened \(Invalid data .*fetch it again"),
        (lambda path: path.write_text("a text"), r"no video that can be opened"),
        (lambda path: path.mkdir(), r"a folder where a file was expected"),
        (lambda path: None, r"no such file; check the path"),
    ],
    ids=["sound", "no frames", "empty", "text", "folder", "absent"],
)
def test_what_is_no_video_is_told_in_one_sentence(make, message: str, tmp_path: Path) -> None:
    make(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=rf"a\.mp4: {message}") as error, open_video(tmp_path / "a.mp4"):
        pass
    assert "\n" not in str(error.value)


def test_a_video_without_its_end_is_told(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", gray_frames(30))
    (tmp_path / "b.mp4").write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ValueError, match="b.mp4: no video that can be opened"), open_video(tmp_path / "b.mp4"):
        pass


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'pps-fast\[video\]'"), open_video(tmp_path / "a.mp4"):
        pass


def test_folders_give_their_videos_and_names_are_unique(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "notes.txt", "other/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in videos_in([tmp_path])] == ["a.MKV", "b.mp4"]
    assert [path.name for path in videos_in([tmp_path / "notes.txt"])] == ["notes.txt"]
    with pytest.raises(ValueError, match=r"a\.mp4: has the name of .*a\.MKV"):
        videos_in([tmp_path, tmp_path / "other"])
    with pytest.raises(ValueError, match="no such file or folder"):
        videos_in([tmp_path / "c.mp4"])
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="the folder has no video"):
        videos_in([tmp_path / "other"])
    assert is_video(Path("a.MP4")) and not is_video(Path("a.npy"))
