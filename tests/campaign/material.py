"""Good input of every program in every format, made once for a campaign, and the command lines that read it."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pps_fast.data.identity import describe_data
from pps_fast.data.load import load_data
from pps_fast.data.prepared import PreparedData, read_prepared, write_prepared
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.published.weights import export_released
from tests.campaign.child import call
from tests.support.lab_experiments import OPTIONS as LAB
from tests.support.model_folders import as_older_version
from tests.support.prepare_inputs import DURATIONS, TEST, TRAIN, WORDS, frames_of, make_inputs
from tests.support.prepared_data import write_version_1
from tests.support.train_runs import small_config
from tests.support.videos import noisy_frames, write_video

RUN = ["--preset=tiny", "--train.max-steps=2", "--train.log-every=1", "--train.checkpoint-every=1", "--threads=1",
       "--inference.num-bootstrap=20", "--data.validation-fraction=0.3", "--train.keep=validation",
       "--train.trace-every=1"]  # fmt: skip
_PREPARE = ["--out", "{}/out.h5", "--protocol", "as_is", "--num-segments", "8", "--max-num-words", "6"]
_ROWS = ["--train", "{}/train.json", "--test", "{}/test.json"]
_HDF5, _NPZ = ["--features", "{}/features.hdf5"], ["--vocabulary", "{}/words.npz"]
_ALIGN = ["--threads=1", "--device=cpu", "--inference.num-bootstrap=20"]
_FRAMES = ("--encoder=color", "--fps=4", "--threads=1")
_PACKED = ("data.h5", "old.h5")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One command and what it reads.

    Attributes:
        name: for the report.
        program: module with `main`.
        argv: command line; "{}" stands for the folder.
        reads: names in the material that are copied into the folder.
        targets: glob patterns of the files that are spoiled.
        writes: names that the command may create or replace, or below which it may.
        is_checked: whether all of what is spoiled is covered by a sha256, so that a change must be noticed.
        is_printing: whether what it prints is its result, in lines of JSON.
    """

    name: str
    program: str
    argv: tuple[str, ...]
    reads: tuple[str, ...]
    targets: tuple[str, ...]
    writes: tuple[str, ...] = ()
    is_checked: bool = False
    is_printing: bool = False

    def command(self, folder: Path) -> list[str]:
        """Returns the command line for a folder."""
        return [word.replace("{}", str(folder)) for word in self.argv]


def make(folder: Path) -> Path:
    """Writes the material into an empty folder and returns it.

    Raises:
        RuntimeError: where a program refuses good input.
    """
    make_inputs(folder)
    for name in ("train.json", "test.json"):
        (folder / name).write_text(json.dumps(TRAIN if name == "train.json" else TEST, indent=0), encoding="utf-8")
    _write_annotations(folder)
    _write_features(folder)
    _write_vocabularies(folder)
    data = load_data(small_config().data)
    write_prepared(folder / "data.h5", data)
    write_version_1(folder / "old.h5", data)
    _write_clips(folder, data)
    _write_answers(folder)
    _write_sentences(folder)
    (folder / "videos").mkdir()
    for seed, name in enumerate(("a.mp4", "b.mkv")):
        write_video(folder / "videos" / name, noisy_frames(30, seed))
    config = PRESETS["cpl_demo"]
    torch.manual_seed(0)
    torch.save({"model_parameters": export_released(PPS(config, data.sizes)), "num_updates": 3}, folder / "cpl.pt")
    for out, argv in {
        "run": ["pps_fast.train.__main__", *RUN, "--data", f"{folder}/data.h5", "--out", f"{folder}/run"],
        "cpl": ["pps_fast.published.__main__", "import", f"{folder}/cpl.pt", "--preset=cpl_demo", f"--out={folder}/cpl",
                "--data", f"{folder}/data.h5"],
        "ali": ["pps_fast.align", *_ALIGN, "--data", f"{folder}/data.h5", "--out", f"{folder}/ali"],
        "frames": ["pps_fast.features.__main__", f"{folder}/videos/a.mp4", *_FRAMES, f"--out={folder}/frames.hdf5"],
        "lab": ["pps_fast.compare", "tiny", *LAB[1:], "--jobs=1", "--no-plots", f"--out={folder}/lab"],
    }.items():  # fmt: skip
        # where a server that an experiment starts looks for the project
        done = call(argv[0], argv[1:], folder / f"{out}.log", cwd=Path.cwd(), time_limit_s=300.0)
        if done.status != 0:
            raise RuntimeError(done.text)
    shutil.copytree(folder / "run", folder / "old_run")
    latest = folder / "old_run" / json.loads((folder / "old_run/latest.json").read_text())["checkpoint"]
    as_older_version(latest, describe_data(read_prepared(folder / "data.h5")))
    return folder


def _write_annotations(folder: Path) -> None:
    rows = [*TRAIN, *TEST]
    lines = [f"{row[0]} {row[2][0]} {row[2][1]}##{row[3]}" for row in rows]
    (folder / "sta.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with open(folder / "lengths.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "length", "subject"), *((*item, "x") for item in DURATIONS.items())])
    videos: dict[str, Any] = {}
    for video, duration, times, sentence in rows:
        entry = videos.setdefault(video, {"duration": duration, "timestamps": [], "sentences": []})
        entry["timestamps"].append(times)
        entry["sentences"].append(sentence)
    (folder / "captions.json").write_text(json.dumps(videos), encoding="utf-8")
    queries = [
        {"qid": index, "vid": row[0], "duration": row[1], "query": row[3], "relevant_windows": [row[2], row[2]]}
        for index, row in enumerate(rows)
    ]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)) + "\n", encoding="utf-8")
    plain = [
        {"video": row[0], "sentence": row[3], "duration": row[1], "start": row[2][0], "end": row[2][1], "id": index}
        for index, row in enumerate(rows)
    ]
    (folder / "plain.jsonl").write_text("\n".join(map(json.dumps, plain)) + "\n", encoding="utf-8")
    with open(folder / "plain.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([plain[0].keys(), *(row.values() for row in plain)])
    people = [("video_id", "description", "start", "end")]
    people += [(f"{row[0]}.mp4", row[3], 10 * person, 50 + person) for row in TEST for person in range(5)]
    with open(folder / "people.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(people)


def _write_features(folder: Path) -> None:
    with h5py.File(folder / "groups.h5", "w") as file:
        for video in "ABCDEF":
            frames = frames_of(video)
            file.create_dataset(f"{video}/c3d", data=frames, compression="gzip", chunks=(1, frames.shape[1]))
    for ending in ("npy", "npz", "pt"):
        (folder / ending).mkdir()
    for video in "ABCDEF":
        np.save(folder / f"npy/{video}.npy", frames_of(video))
        np.savez_compressed(folder / f"npz/{video}.npz", features=frames_of(video))
        torch.save({"x": torch.from_numpy(frames_of(video))}, folder / f"pt/{video}.pt")


def _write_clips(folder: Path, data: PreparedData) -> None:
    """Writes features of two videos of the packed file in the forms that questions are asked of."""
    frames, lengths = [data.features[video].astype(np.float32) for video in (0, 1)], [("id", "length")]
    np.save(folder / "clip.npy", frames[0])
    np.savez_compressed(folder / "clip.npz", features=frames[0])
    with h5py.File(folder / "clips.hdf5", "w") as file:
        for video, values in enumerate(frames):
            file[f"clip{video}"] = values
            lengths.append((f"clip{video}", str(data.duration_s[video])))
    with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lengths)


def _write_answers(folder: Path) -> None:
    """Writes answers to the annotated queries, by number and by words, in the two forms of the field."""
    for name in ("answers", "ranked"):
        lines = []
        for index, (video, duration, times, sentence) in enumerate([*TRAIN, *TEST]):
            windows = [[times[0], min(duration, times[1] + 1), 0.9], [0, duration, 0.5]]
            form = {"pred_relevant_windows": windows}
            if name == "ranked":
                form = {"ranked_predicted_windows": windows, "predicted_window": windows[0][:2]}
            lines.append(json.dumps({"qid": index, "vid": video, "query": sentence, **form}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_sentences(folder: Path) -> None:
    """Writes a vector of each annotated sentence: rows, an entry for each query, a folder."""
    sentences = [row[3] for row in (*TRAIN, *TEST)]
    vectors = np.random.default_rng(1).standard_normal((len(sentences), 6)).astype(np.float32)
    np.savez(folder / "rows.npz", vectors=vectors, sentences=np.array(sentences), encoder=np.array("test@1"))
    (folder / "sentences").mkdir()
    with h5py.File(folder / "entries.h5", "w") as file:
        for index, vector in enumerate(vectors):
            file[f"{index}/last_hidden_state"] = np.stack([vector, vector + 1])
            np.savez(folder / f"sentences/qid{index}.npz", pooler_output=vector)


def _write_vocabularies(folder: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 5)).astype(np.float32)
    content = {
        "w2id": {word: index for index, word in enumerate(WORDS)},
        "id2vec": list(vectors),
        "counter": Counter({word: 9 - index % 9 for index, word in enumerate(WORDS)}),
    }
    for protocol in (0, 2, 4):
        (folder / f"words{protocol}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(WORDS, vectors.tolist(), strict=True)]
    (folder / "glove.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _prepare(name: str, target: str, reads: tuple[str, ...], *argv: str) -> Scenario:
    return Scenario(
        name=f"prepare {name}",
        program="pps_fast.prepare.__main__",
        argv=(*_PREPARE, *argv),
        reads=reads,
        targets=(target,),
        writes=("out.h5",),
    )


def _with_packed(make_one: Callable[[str], Scenario]) -> list[Scenario]:
    return [make_one(name) for name in _PACKED]


def _ground(
    name: str, reads: tuple[str, ...], targets: tuple[str, ...], *argv: str, is_checked: bool = False
) -> Scenario:
    return Scenario(
        name=f"ground {name}",
        program="pps_fast.ground.__main__",
        argv=("person opens the door", "a person takes a cup", "--jsonl", "--threads=1", *argv),
        reads=reads,
        targets=targets,
        is_checked=is_checked,
        is_printing=True,
    )


def _judge(name: str, answers: str, *argv: str) -> Scenario:
    return Scenario(
        name=f"judge {name}",
        program="pps_fast.eval.__main__",
        argv=("--judge={}/" + answers, "--annotations={}/queries.jsonl", "--out={}/new", *argv),
        reads=("answers.jsonl", "ranked.jsonl", "queries.jsonl"),
        targets=(name,),
        writes=("new",),
    )


_ENTRIES = ("--sentence-key=last_hidden_state", "--sentence-encoder=test@1")
_BASE = ("train.json", "test.json", "features.hdf5", "words.npz")
SCENARIOS: list[Scenario] = [
    _prepare("published json", "train.json", _BASE, *_ROWS, *_HDF5, *_NPZ),
    _prepare("HDF5", "features.hdf5", _BASE, *_ROWS, *_HDF5, *_NPZ),
    _prepare("HDF5, skipping", "features.hdf5", _BASE, *_ROWS, *_HDF5, *_NPZ, "--skip-bad"),
    _prepare("HDF5 groups", "groups.h5", (*_BASE[:2], "groups.h5", "words.npz"), *_ROWS, "--features={}/groups.h5",
             *_NPZ),
    *(
        _prepare(kind, f"{kind}/*", (*_BASE[:2], kind, "words.npz"), *_ROWS, f"--features={{}}/{kind}", *_NPZ, *options)
        for kind, options in {"npy": (), "npz": ("--skip-bad",), "pt": ("--feature-key=x",)}.items()
    ),
    _prepare("two sources", "groups.h5", (*_BASE, "groups.h5"), *_ROWS, "--features", "first:{}/features.hdf5",
             "second:{}/groups.h5", *_NPZ),
    _prepare("npz vocabulary", "words.npz", _BASE, *_ROWS, *_HDF5, *_NPZ),
    *(
        _prepare(f"vocabulary {name}", name, (*_BASE[:3], name), *_ROWS, *_HDF5, "--vocabulary={}/" + name)
        for name in ("words0.pkl", "words2.pkl", "words4.pkl", "glove.txt")
    ),
    *(
        _prepare(f"{name} for sta.txt", name, ("sta.txt", "lengths.csv", *_BASE[2:]), "--train={}/sta.txt",
                 "--durations={}/lengths.csv", *_HDF5, *_NPZ)
        for name in ("sta.txt", "lengths.csv")
    ),
    *(
        _prepare(name, name, (name, *_BASE[2:]), "--pool={}/" + name, "--folds=2", *_HDF5, *_NPZ)
        for name in ("captions.json", "queries.jsonl", "plain.jsonl", "plain.csv")
    ),
    *(
        _prepare(f"sentences {name}", target, ("queries.jsonl", name, *_BASE[2:]), "--train={}/queries.jsonl",
                 "--sentence-vectors={}/" + name, *options, *_HDF5, *_NPZ)
        for name, target, options in (("rows.npz", "rows.npz", ()),
                                      ("entries.h5", "entries.h5", _ENTRIES),
                                      ("sentences", "sentences/*", ("--sentence-encoder=test@1",)))
    ),
    _ground("npy", ("ali", "clip.npy"), ("clip.npy",), "--model={}/ali", "--features={}/clip.npy", "--duration=30"),
    _ground("npz", ("ali", "clip.npz"), ("clip.npz",), "--model={}/ali", "--features={}/clip.npz",
            "--segment-seconds=5", "--frames-per-second=1"),
    *(
        _ground(target, ("ali", "clips.hdf5", "clips.csv"), (target,), "--model={}/ali", "--features={}/clips.hdf5",
                "--durations={}/clips.csv")
        for target in ("clips.hdf5", "clips.csv")
    ),
    *_with_packed(lambda name: _ground(name, ("ali", name), (name,), "--model={}/ali", "--features={}/" + name,
                                       "--min-match=0", is_checked=name == "data.h5")),
    _ground("alignment", ("ali", "clip.npy"), ("ali/checkpoints/*/*",), "--model={}/ali", "--features={}/clip.npy",
            is_checked=True),
    _ground("run", ("run", "clip.npy"), ("run/*.json", "run/checkpoints/*/*"), "--model={}/run",
            "--features={}/clip.npy"),
    _judge("answers.jsonl", "answers.jsonl"),
    _judge("ranked.jsonl", "ranked.jsonl", "--against={}/answers.jsonl", "--clip"),
    _judge("queries.jsonl", "answers.jsonl", "--protocol=filtered"),
    Scenario(
        name="features", program="pps_fast.features.__main__", reads=("videos",), targets=("videos/*",),
        argv=("{}/videos", *_FRAMES, "--out={}/out.hdf5"), writes=("out.hdf5", "out.hdf5.parts")),
    Scenario(
        name="features continued", program="pps_fast.features.__main__", reads=("videos", "frames.hdf5"),
        targets=("frames.hdf5",), argv=("{}/videos", *_FRAMES, "--out={}/frames.hdf5"),
        writes=("frames.hdf5", "frames.hdf5.parts")),
    *_with_packed(lambda name: Scenario(
        name=f"align {name}", program="pps_fast.align", reads=(name,), targets=(name,), is_checked=name == "data.h5",
        argv=(*_ALIGN, "--data={}/" + name, "--out={}/new"), writes=("new",))),
    Scenario(
        name="align resumed", program="pps_fast.align", reads=("ali", "data.h5"),
        targets=("ali/*.json", "ali/*.jsonl", "ali/checkpoints/*/*"),
        argv=(*_ALIGN, "--data={}/data.h5", "--out={}/ali", "--resume"), writes=("ali",)),
    Scenario(
        name="eval alignment", program="pps_fast.eval.__main__", reads=("ali", "data.h5"), is_checked=True,
        targets=("ali/checkpoints/*/*",), writes=("new", "moments.jsonl"),
        argv=("--model={}/ali", "--data={}/data.h5", "--threads=1", "--out={}/new", "--predictions={}/moments.jsonl")),
    Scenario(
        name="draw variants", program="pps_fast.draw.__main__", reads=("run", "old_run", "data.h5"),
        targets=("run/checkpoints/*/*", "old_run/*.json", "old_run/checkpoints/*/*", "data.h5"), writes=("x.png",),
        argv=("variants", "--models", "{}/run", "{}/old_run", "--data={}/data.h5", "--out={}/x.png")),
    *_with_packed(lambda name: Scenario(
        name=f"blind {name}", program="pps_fast.blind", reads=(name,), targets=(name,), is_checked=name == "data.h5",
        argv=("--data", "{}/" + name, "--draws=3", "--out={}/blind.json"), writes=("blind.json",))),
    *_with_packed(lambda name: Scenario(
        name=f"train {name}", program="pps_fast.train.__main__", reads=(name,), targets=(name,),
        is_checked=name == "data.h5", argv=(*RUN, "--data={}/" + name, "--out={}/new"), writes=("new",))),
    *_with_packed(lambda name: Scenario(
        name=f"info {name}", program="pps_fast.info", reads=(name,), targets=(name,), is_checked=name == "data.h5",
        argv=("--preset=tiny", "--data={}/" + name))),
    *_with_packed(lambda name: Scenario(
        name=f"eval {name}", program="pps_fast.eval.__main__", reads=("run", name), targets=(name,),
        is_checked=name == "data.h5",
        argv=("--model={}/run", "--data={}/" + name, "--threads=1", "--out={}/new"), writes=("new",))),
    Scenario(
        name="eval model", program="pps_fast.eval.__main__", reads=("run", "data.h5"), is_checked=True,
        targets=("run/checkpoints/*/*",), argv=("--model={}/run", "--data={}/data.h5", "--threads=1", "--out={}/new"),
        writes=("new",)),
    Scenario(
        name="eval old model", program="pps_fast.eval.__main__", reads=("old_run", "data.h5"),
        targets=("old_run/*.json", "old_run/checkpoints/*/*"),
        argv=("--model={}/old_run", "--data={}/data.h5", "--threads=1", "--out={}/new"), writes=("new",)),
    Scenario(
        name="eval run records", program="pps_fast.eval.__main__", reads=("run", "data.h5"),
        targets=("run/*.json", "run/*.jsonl"), argv=("--model={}/run", "--data={}/data.h5", "--threads=1"),
        writes=("run",)),
    Scenario(
        name="train resumed", program="pps_fast.train.__main__", reads=("run", "data.h5"),
        targets=("run/*.json", "run/*.jsonl", "run/checkpoints/*/*"),
        argv=(*RUN, "--data={}/data.h5", "--out={}/run", "--resume", "--train.max-steps=3"), writes=("run",)),
    Scenario(
        name="draw curves", program="pps_fast.draw.__main__", reads=("run",), targets=("run/*.json", "run/*.jsonl"),
        argv=("curves", "--runs", "{}/run", "--out={}/x.png"), writes=("x.png",)),
    Scenario(
        name="draw trajectories", program="pps_fast.draw.__main__", reads=("run", "data.h5"),
        targets=("run/*.json", "run/trace.jsonl", "run/checkpoints/*/model.json", "data.h5"),
        argv=("trajectories", "--runs", "{}/run", "--data={}/data.h5", "--out={}/x.png"), writes=("x.png",)),
    Scenario(
        name="draw timeline", program="pps_fast.draw.__main__", reads=("run", "data.h5"), is_checked=True,
        targets=("run/checkpoints/*/*", "data.h5"),
        argv=("timeline", "--model={}/run", "--data={}/data.h5", "--out={}/x.png"), writes=("x.png",)),
    Scenario(
        name="compare tables", program="pps_fast.compare", reads=("lab",),
        targets=("lab/runs/*/result.json", "lab/runs/*/samples.npz", "lab/runs/*/*.json", "lab/runs/*/*.jsonl"),
        argv=("tiny", *LAB[1:], "--out={}/lab", "--tables-only", "--no-plots"), writes=("lab",)),
    Scenario(
        name="compare people", program="pps_fast.compare", reads=("lab", "people.csv"), targets=("people.csv",),
        argv=("tiny", *LAB[1:], "--out={}/lab", "--tables-only", "--no-plots", "--human={}/people.csv"),
        writes=("lab",)),
    Scenario(
        name="ablate", program="pps_fast.ablate", reads=("lab",), targets=("lab/runs/*/*",),
        argv=("fig4", *LAB, "--out={}/lab", "--no-plots", "--tables-only"), writes=("lab",)),
    Scenario(
        name="published in", program="pps_fast.published.__main__", reads=("cpl.pt", "data.h5"), targets=("cpl.pt",),
        argv=("import", "{}/cpl.pt", "--preset=cpl_demo", "--data={}/data.h5", "--out={}/new"), writes=("new",)),
    Scenario(
        name="published out", program="pps_fast.published.__main__", reads=("cpl",), is_checked=True,
        targets=("cpl/checkpoints/*/*",), argv=("export", "{}/cpl", "--out={}/x.pt"), writes=("x.pt",)),
]  # fmt: skip
