"""Every way to spoil the input of `python -m pps_fast.prepare`, and the message it gives.

`python tests/support/bad_inputs.py` prints the table as Markdown; `test_bad_input.py` runs the same cases.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
# run as a script, this file finds the package and its neighbors like a test does
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pps_fast.prepare.__main__ import main  # noqa: E402
from tests.support.prepare_inputs import TRAIN, frames_of, make_inputs, to_argv, write_features, write_json  # noqa: E402

Spoil = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One spoiled input.

    Attributes:
        name: what is wrong.
        spoil: changes the good input in a folder, returns changed options.
        fragment: what the message must contain.
        skipped: with --skip-bad the rest is prepared, and this kind is counted; None when nothing can be skipped.
    """

    name: str
    spoil: Spoil
    fragment: str
    skipped: str | None = None


def _rows(*rows: Any) -> Spoil:
    """Adds rows to the training annotations."""

    def spoil(folder: Path) -> dict[str, Any]:
        write_json(folder / "train.json", [*TRAIN, *rows])
        return {}

    return spoil


def _video(**changes: np.ndarray) -> Spoil:
    """Replaces the features of videos."""

    def spoil(folder: Path) -> dict[str, Any]:
        write_features(folder / "features.hdf5", **changes)
        return {}

    return spoil


def _text(name: str, text: str | bytes, **options: Any) -> Spoil:
    """Writes a file; options that are names of files in the folder become paths."""

    def spoil(folder: Path) -> dict[str, Any]:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return {
            option: folder / value if isinstance(value, str) and "." in value else value
            for option, value in options.items()
        }

    return spoil


def _cut(name: str, option: str | None = None, make: Callable[[Path], None] | None = None) -> Spoil:
    """Cuts a file in half, after making it if need be."""

    def spoil(folder: Path) -> dict[str, Any]:
        if make is not None:
            make(folder)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        return {option: folder / name} if option else {}

    return spoil


def _one_file_per_video(extension: str, spoil_one: Callable[[Path], None]) -> Spoil:
    """Stores features as a folder of npy, npz or pt files, one of which is spoiled."""

    def spoil(folder: Path) -> dict[str, Any]:
        target = folder / "clips"
        target.mkdir()
        for video_id in "ABCDEF":
            path = target / f"{video_id}{extension}"
            if extension == ".npz":
                np.savez(path, features=frames_of(video_id))
            elif extension == ".npy":
                np.save(path, frames_of(video_id))
            else:
                torch.save(torch.from_numpy(frames_of(video_id)), path)
        spoil_one(target / f"B{extension}")
        return {"features": target}

    return spoil


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_key(path: Path) -> None:
    np.savez(path, image_embeddings=frames_of("B"))


class Exploit:
    """Unpickled, it would create the file whose name it carries."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def _hostile_pt(path: Path) -> None:
    torch.save({"features": Exploit(path.parent.parent / "exploited")}, path)


def _hostile_vocabulary(folder: Path) -> dict[str, Any]:
    content = {"w2id": {}, "id2vec": [], "counter": Exploit(folder / "exploited")}
    (folder / "glove.pkl").write_bytes(pickle.dumps(content))
    return {"vocabulary": folder / "glove.pkl"}


def _make_pickle(folder: Path) -> None:
    content = {"w2id": {"door": 1}, "id2vec": [np.zeros(3), np.ones(3)], "counter": {"door": 2}}
    (folder / "glove.pkl").write_bytes(pickle.dumps(content))


def _nan_vectors(folder: Path) -> dict[str, Any]:
    np.savez(folder / "words.npz", words=np.array(["door", "person"]), vectors=np.array([[1.0], [np.nan]]))
    return {}


def _groups(folder: Path) -> dict[str, Any]:
    with h5py.File(folder / "groups.h5", "w") as file:
        file["A/c3d"], file["A/i3d"] = frames_of("A"), frames_of("A")
    return {"features": folder / "groups.h5"}


def _charades(csv: str, txt: str) -> Spoil:
    """Uses the txt + csv form for training, no test split."""

    def spoil(folder: Path) -> dict[str, Any]:
        (folder / "sta.txt").write_text(txt)
        (folder / "lengths.csv").write_text(csv)
        return {"train": folder / "sta.txt", "test": None, "durations": folder / "lengths.csv"}

    return spoil


def _wide(value: float) -> np.ndarray:
    frames = frames_of("B").copy()
    frames[7, 2] = value
    return frames


def _hdf5(spoil_one: Callable[[h5py.File], Any]) -> Spoil:
    """Replaces video B in the features; a file beside them holds what should not be copied."""

    def spoil(folder: Path) -> dict[str, Any]:
        (folder / "secret").write_bytes(b"secret" * 100)
        with h5py.File(folder / "features.hdf5", "a") as file:
            del file["B"]
            spoil_one(file)
        return {}

    return spoil


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((21, 4), dtype="f4")
    layout[:] = h5py.VirtualSource("gone.h5", "B", shape=(21, 4))
    file.create_virtual_dataset("B", layout)


def _one_group(folder: Path) -> dict[str, Any]:
    with h5py.File(folder / "groups.h5", "w") as file:
        for index in range(2000):
            file[f"all/{'ABCDEF'[index] if index < 6 else index}"] = frames_of("A")
    return {"features": folder / "groups.h5"}


def _protocol_bomb(folder: Path) -> dict[str, Any]:
    (folder / "v.pkl").write_bytes(b"\x80\x02K\x01r\xff\xff\xff\x7f.")
    return {"vocabulary": folder / "v.pkl"}


_LINE = "A 0.0 4.0##person opens the door.\n"
_DICT = '{"A": {"duration": 10, "timestamps": [[0, 4]], "sentences": ["person runs."]}, %s}'

CASES = [
    Case(
        "unknown video",
        _rows(["Z", 9.0, [1, 2], "door"]),
        "train.json, row 5: video Z has no features",
        "unknown video",
    ),
    Case("another width", _video(B=np.ones((5, 7))), "video B: has features of width 7, expected 4", "bad features"),
    Case("NaN feature", _video(B=_wide(np.nan)), "1 NaN or infinite values, the first in frame 7", "bad features"),
    Case("infinite feature", _video(B=_wide(np.inf)), "video B: has 1 NaN or infinite values", "bad features"),
    Case("beyond float16", _video(B=_wide(1e6)), "beyond the float16 range of 65504", "bad features"),
    Case("no frames", _video(B=np.ones((0, 4))), "video B: has shape [0, 4], that is no frames", "bad features"),
    Case(
        "features of 3 axes", _video(B=np.ones((5, 2, 4))), "shape [5, 2, 4], expected [frames, width]", "bad features"
    ),
    Case(
        "duration 0", _rows(["F", 0, [0, 1], "door"]), "row 5: duration 0.0 is not above 0 seconds", "zero-length video"
    ),
    Case(
        "no known word",
        _rows(["A", 10.0, [0, 1], "xyzzy"]),
        "row 5: no word of 'xyzzy' is in words.npz",
        "no known word",
    ),
    Case("empty sentence", _rows(["A", 10.0, [0, 1], " "]), "row 5: no word of ''", "no known word"),
    Case("start = end", _rows(["A", 10.0, [2, 2], "door"]), "start 2.0 is not before end 2.0", "start >= end"),
    Case("start > end", _rows(["A", 10.0, [5, 2], "door"]), "row 5: start 5.0 is not before end 2.0", "start >= end"),
    Case("start > length", _rows(["A", 10.0, [11, 12], "door"]), "not before the video's length", "start >= length"),
    Case("negative start", _rows(["A", 10.0, [-1, 2], "door"]), "start -1.0 is below 0 seconds", "negative start"),
    Case("NaN time", _rows(["A", 10.0, [float("nan"), 2], "door"]), "row 5: not a row of the format", "malformed row"),
    Case(
        "two durations", _rows(["A", 11.0, [1, 2], "door"]), "length 11.0 here and 10.0 in an earlier", "duplicate id"
    ),
    Case("malformed json row", _rows(["A", 10.0, "door"]), "row 5: not a row of the format", "malformed row"),
    Case(
        "many bad rows", _rows(*[["A", 10.0, [5, 2], "door"]] * 7), "and 2 more; correct these 7 rows", "start >= end"
    ),
    Case(
        "name twice in a json object",
        _text("x.json", _DICT % '"A": {}', train="x.json"),
        "x.json: the name 'A' occurs twice",
        "duplicate id",
    ),
    Case(
        "timestamps without sentences",
        _text("x.json", _DICT % '"B": {"duration": 9, "timestamps": [[0, 1]], "sentences": []}', train="x.json"),
        "x.json, video B: needs a duration and as many timestamps as sentences",
        "malformed row",
    ),
    Case(
        "malformed json line",
        _text("x.jsonl", '{"vid": "A", "duration": 10, "query": "door", "relevant_windows": [1]}\n', train="x.jsonl"),
        "x.jsonl, line 1: not a row of the format qvhighlights_jsonl",
        "malformed row",
    ),
    Case(
        "malformed text line",
        _charades("id,length\nA,10\n", _LINE + "A 1.0##door\n"),
        "sta.txt, line 2: not a row of the format charades_txt",
        "malformed row",
    ),
    Case(
        "video without a length",
        _charades("id,length\nA,10\n", _LINE + "B 1.0 2.0##door\n"),
        "sta.txt, line 2: video B has no length; name its csv with --durations",
        "no duration",
    ),
    Case(
        "two lengths in the csv",
        _charades("id,length\nA,10\nA,11\n", _LINE),
        "lengths.csv, line 3: video A has length 11.0 here and 10.0 in an earlier row",
        "duplicate id",
    ),
    Case(
        "length 0 in the csv",
        _charades("id,length\nA,10\nB,0\n", _LINE),
        "lengths.csv, line 3: length 0 of video B is not above 0 seconds",
        "zero-length video",
    ),
    Case(
        "no number in the csv",
        _charades("id,length\nA,10\nB,\n", _LINE),
        "lengths.csv, line 3: length '' of video B is not a finite number",
        "bad duration",
    ),
    Case("csv without the column", _charades("id,seconds\nA,10\n", _LINE), "the header lacks the column length"),
    Case("truncated npz of a video", _one_file_per_video(".npz", _halve), "video B: a broken archive", "bad features"),
    Case(
        "truncated npy of a video",
        _one_file_per_video(".npy", _halve),
        "needs 336 bytes but has 104 bytes: it is truncated",
        "bad features",
    ),
    Case("truncated pt of a video", _one_file_per_video(".pt", _halve), "video B: cannot be read", "bad features"),
    Case("hostile pt of a video", _one_file_per_video(".pt", _hostile_pt), "video B: refused", "bad features"),
    Case("npz without the key", _one_file_per_video(".npz", _other_key), "has no entry 'features'", "bad features"),
    Case("truncated json", _cut("train.json"), "not complete JSON"),
    Case("truncated HDF5", _cut("features.hdf5"), "features.hdf5: truncated, its end is missing"),
    Case("truncated pickle", _cut("glove.pkl", "vocabulary", _make_pickle), "glove.pkl: not a complete pickle"),
    Case("truncated npz vocabulary", _cut("words.npz"), "words.npz: a broken archive"),
    Case("hostile pickle", _hostile_vocabulary, "refused: it asks for io.open"),
    Case(
        "truncated GloVe text",
        _text("glove.txt", "door 1 2 3\nperson 1 2\n", vocabulary="glove.txt"),
        "glove.txt, line 2: fewer than 3 numbers; the file is truncated",
    ),
    Case(
        "no number in GloVe text",
        _text("glove.txt", "door 1 2 3\nperson 1 x 3\n", vocabulary="glove.txt"),
        "glove.txt, line 2: could not convert string to float",
    ),
    Case("vector with NaN", _nan_vectors, "the vector of 'person' has NaN or infinite values"),
    Case("foreign vocabulary", _text("v.txt", "xyzzy 1 2\n", vocabulary="v.txt"), "has none of the words"),
    Case("unknown kind of file", _text("a.xml", "<a/>", train="a.xml"), "name it with --annotation-format"),
    Case("no text", _text("a.txt", b"\xff\xfe\x00", train="a.txt"), "a.txt: not text (byte 2 is not UTF-16)"),
    Case("missing annotations", lambda folder: {"train": folder / "no.json"}, "no.json: no such file; check the path"),
    Case("missing features", lambda folder: {"features": folder / "no.h5"}, "no.h5: no such file or folder"),
    Case("missing vocabulary", lambda folder: {"vocabulary": folder / "no.pkl"}, "no.pkl: no such file"),
    Case("folder without features", lambda folder: {"features": folder / ".."}, "no .npy, .npz or .pt files"),
    Case("several data sets per video", _groups, "holds c3d, i3d; name the features with --feature-key"),
    Case(
        "features in another file",
        _hdf5(lambda file: file.create_dataset("B", (21, 4), "f4", external=[("secret", 0, 336)])),
        "video B: data set 'B' is stored in another file, which is refused",
        "bad features",
    ),
    Case("virtual features", _hdf5(_virtual), "video B: data set 'B' is virtual, put together", "bad features"),
    Case(
        "link to another file",
        _hdf5(lambda file: file.__setitem__("B", h5py.ExternalLink("gone.h5", "/B"))),
        "video B: data set 'B' is a link to another file, which is refused",
        "bad features",
    ),
    Case(
        "features of more than is stored",
        _hdf5(lambda file: file.create_dataset("B", (10**9, 10**4), "f4", chunks=(10, 10))),
        "video B: data set 'B' has shape [1000000000, 10000], which declares 36.4 TiB but stores 0 bytes",
        "bad features",
    ),
    Case("zeros", _video(B=np.zeros((21, 4))), "video B: has only zeros: its features were never", "bad features"),
    Case("below float16", _video(B=np.full((21, 4), 1e-9)), "no value above 1e-09, which all become", "bad features"),
    Case("one group of all videos", _one_group, "the group 'all' holds 2,000 videos; pass --feature-group all"),
    Case("pickle that asks for memory", _protocol_bomb, "holds a number of 31 bits, as only a damaged"),
    Case("many segments", lambda folder: {"num_segments": 10**9}, "--num-segments: 1000000000; expected at most"),
    Case("nested json", _text("x.json", "[" * 99999, train="x.json"), "x.json: nested too deeply"),
    Case("json lines", _text("x.json", '{"a": 1}\n{"a": 2}', train="x.json"), "x.json: JSON lines, one record a"),
    Case("long row", _rows(["A", 10.0, [0, 1], "x" * 9000]), "row 5: no word of 'xxx", "no known word"),
    Case("half a surrogate pair", _rows(["A", 10.0, [0, 1], "door \ud800"]), "row 5: not a row", "malformed row"),
    Case("no output folder", lambda folder: {"out": folder / "x" / "out.h5"}, "does not exist; create it"),
    Case("output is another file", _text("out.h5", "mine"), "out.h5: exists and is not a prepared file"),
    Case("folds without a pool", lambda folder: {"folds": 5}, "--folds: 5; expected 0 without --pool"),
    Case(
        "more folds than videos",
        lambda folder: {"pool": folder / "test.json", "train": None, "test": None, "folds": 3},
        "folds = 3: expected 2 to 2, the number of videos",
    ),
]


def run_case(case: Case, folder: Path, **options: Any) -> tuple[int, str]:
    """Prepares the spoiled input in an empty folder; returns the exit status and what went to stderr."""
    good = make_inputs(folder)
    argv = to_argv({**good, **case.spoil(folder), **options})
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(argv)
    # what precedes the message is the progress bar
    return status, errors.getvalue().split("\r")[-1].strip().splitlines()[-1] if errors.getvalue() else ""


def table(cases: list[Case]) -> str:
    """Returns cases with their messages as Markdown."""
    lines = ["| case | message | with --skip-bad |", "| --- | --- | --- |"]
    for case in cases:
        with tempfile.TemporaryDirectory() as name:
            _, message = run_case(case, Path(name))
            shown = message.replace(f"{name}/", "").replace("|", "\\|")
        lines.append(f"| {case.name} | {shown} | {'continues' if case.skipped else 'still refused'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(CASES))
