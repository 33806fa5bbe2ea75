"""make demo-video: from video files to an answer, on small videos of moving shapes that are drawn on the spot.

    python docs/demo_video.py [--out FOLDER] [--videos N] [--seed N]

Draws the videos, encodes them by the toy `color`, packs them with sentences without times, fits an alignment, and asks
it about videos that it has not seen, by the commands that anybody would type. The truth stands beside the answers: it
is drawn, and the model has never seen it. Such videos show that the steps work, and nothing about real ones.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

COLORS = {
    "red": (220, 30, 30),
    "green": (30, 190, 60),
    "blue": (40, 70, 230),
    "yellow": (230, 210, 40),
    "pink": (240, 130, 200),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle")
MOTIONS = ("moves to the right", "falls down", "grows")
FPS, HEIGHT, WIDTH = 8, 96, 128
NUM_SHOWN = 3
_WORD_WIDTH = 16
_TEST_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Event:
    """What is seen for a while: a shape of a color that does something."""

    color: str
    shape: str
    motion: str
    start_s: float
    end_s: float

    @property
    def sentence(self) -> str:
        """What happens, in words."""
        return f"a {self.color} {self.shape} {self.motion}"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video: its name, length, and two or three events one after the other."""

    name: str
    duration_s: float
    events: tuple[Event, ...]


def plan(count: int, seed: int) -> list[Clip]:
    """Returns clips of 12 to 20 seconds; no two events of one have the same color."""
    random = np.random.default_rng(seed)
    clips = []
    for number in range(count):
        num_events = int(random.integers(2, 4))
        # all of them fit into the shortest clip
        lengths = random.uniform(2.5, 11.0 / num_events, num_events)
        duration_s = float(np.round(random.uniform(12.0, 20.0)))
        # what is left is divided between, before and after the events
        gaps = random.dirichlet(np.ones(num_events + 1)) * (duration_s - lengths.sum())
        starts = np.cumsum(gaps[:-1] + np.concatenate([[0.0], lengths[:-1]]))
        colors = random.choice(list(COLORS), num_events, replace=False)
        events = tuple(
            Event(
                color=str(colors[index]),
                shape=str(random.choice(SHAPES)),
                motion=str(random.choice(MOTIONS)),
                start_s=round(float(starts[index]), 2),
                end_s=round(float(starts[index] + lengths[index]), 2),
            )
            for index in range(num_events)
        )
        clips.append(Clip(name=f"shapes_{number:03d}", duration_s=duration_s, events=events))
    return clips


def frames_of(clip: Clip, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields the [height, width, 3] uint8 frames of a clip: a noisy gray, and the shape of the event at that time."""
    gray = random.integers(60, 110)
    for index in range(round(clip.duration_s * FPS)):
        frame = random.integers(gray - 20, gray + 20, (HEIGHT, WIDTH, 1), dtype=np.uint8).repeat(3, axis=2)
        time_s = (index + 0.5) / FPS
        for event in clip.events:
            if event.start_s <= time_s < event.end_s:
                share = (time_s - event.start_s) / (event.end_s - event.start_s)
                frame[_mask(event, share)] = COLORS[event.color]
        yield frame


def _mask(event: Event, share: float) -> np.ndarray:
    """Returns where a shape is, [height, width] bool, when a share of its event has passed."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    size, center_x, center_y = 16.0, WIDTH / 2, HEIGHT / 2
    if event.motion == "moves to the right":
        center_x = 16 + share * (WIDTH - 32)
    elif event.motion == "falls down":
        center_y = 16 + share * (HEIGHT - 32)
    else:
        size = 8 + 20 * share
    x, y = np.abs(x - center_x), y - center_y
    if event.shape == "circle":
        return np.asarray(x**2 + y**2 < size**2)
    if event.shape == "square":
        return np.asarray((x < size) & (np.abs(y) < size))
    return np.asarray((np.abs(y) < size) & (x < (y + size) / 2))


def draw(clip: Clip, path: Path, seed: int) -> None:
    """Writes a clip as a video file."""
    from pps_fast.features.decode import import_av

    av = import_av("demo-video")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        # a browser can go to every second
        stream.options = {"preset": "ultrafast", "g": str(FPS)}
        for index, pixels in enumerate(frames_of(clip, np.random.default_rng(seed))):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def write_texts(folder: Path, clips: list[Clip], seed: int) -> list[Clip]:
    """Writes pairs without times, test pairs with times, and vectors of words; returns the clips of the test."""
    num_test = max(round(_TEST_SHARE * len(clips)), 1)
    train, test = clips[:-num_test], clips[-num_test:]
    pairs = [f"{clip.name},{event.sentence}" for clip in train for event in clip.events]
    (folder / "train.csv").write_text("\n".join(["video,sentence", *pairs]) + "\n", encoding="utf-8")
    timed = [f"{c.name},{event.sentence},{event.start_s},{event.end_s}" for c in test for event in c.events]
    (folder / "test.csv").write_text("\n".join(["video,sentence,start,end", *timed]) + "\n", encoding="utf-8")
    words = sorted({word for clip in clips for event in clip.events for word in event.sentence.split()})
    vectors = np.random.default_rng(seed).standard_normal((len(words), _WORD_WIDTH))
    lines = [f"{word} {' '.join(f'{value:.4f}' for value in row)}" for word, row in zip(words, vectors, strict=True)]
    (folder / "words.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return test


def clips_with(sentence: str, clips: list[Clip]) -> list[str]:
    """Returns the names of the clips in which a sentence is true."""
    return [clip.name for clip in clips if any(event.sentence == sentence for event in clip.events)]


def run(program: str, *words: str | Path) -> None:
    """Runs a program of the package in this process, after its command line was printed.

    Raises:
        SystemExit: where it fails.
    """
    import importlib

    argv = [str(word) for word in words]
    print(f"\n$ python -m pps_fast.{program} {shlex.join(argv)}", flush=True)
    is_folder = (Path(importlib.import_module("pps_fast").__file__ or "").parent / program).is_dir()
    name = f"pps_fast.{program}.__main__" if is_folder else f"pps_fast.{program}"
    main_of: Callable[[list[str]], int] = importlib.import_module(name).main
    if status := main_of(argv):
        raise SystemExit(status)


def main(argv: list[str] | None = None) -> int:
    """Draws, encodes, prepares, fits, asks; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs") / time.strftime("demo-video-%Y%m%d-%H%M%S"))
    parser.add_argument("--videos", type=int, default=120, help="videos to draw, a quarter of them for the test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    folder, began = options.out, time.perf_counter()
    if folder.exists():
        parser.error(f"--out {folder}: is there; name another")
    (folder / "videos").mkdir(parents=True)
    clips = plan(options.videos, options.seed)
    for number, clip in enumerate(clips):
        draw(clip, folder / "videos" / f"{clip.name}.mp4", options.seed + number)
    test = write_texts(folder, clips, options.seed)
    print(f"drew {len(clips)} videos of moving shapes in {time.perf_counter() - began:.1f} s: {folder / 'videos'}")
    features, data, model = folder / "features.h5", folder / "data.h5", folder / "model"
    run("features", folder / "videos", "--out", features, "--encoder", "color", "--fps", "2")
    texts = ["--train", folder / "train.csv", "--test", folder / "test.csv", "--vocabulary", folder / "words.txt"]
    run("prepare", "--out", data, "--protocol", "as_is", *texts, "--features", features, "--num-segments", "32")
    run("align", "--data", data, "--out", model)
    for clip in test[:NUM_SHOWN]:
        event = clip.events[0]
        run("ground", folder / "videos" / f"{clip.name}.mp4", event.sentence, "--model", model, "--top", "2")
        print(f"truth: {event.start_s:.1f} to {event.end_s:.1f} s of {clip.duration_s:.0f} s, as it was drawn")
    page, sentence = folder / "answers.html", test[0].events[0].sentence
    run("ground", sentence, "--model", model, "--videos", folder / "videos", "--html", page)
    print(f"truth: it was drawn in {', '.join(clips_with(sentence, clips))}; the toy sees colors, and hardly shapes")
    print(f"\nall of it took {time.perf_counter() - began:.0f} s; open {page} in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
