"""What is shared of a model: whole by itself, without the state of training, without paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from pps_fast import PRESETS, load, load_model, override, train_and_evaluate
from pps_fast.hub.bundle import CARD_FILE, EVALUATION_FILE, without_folders, write_bundle
from pps_fast.runs.checkpoint import find_checkpoint
from tests.support.compare import assert_agree


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tiny"
    config = override(PRESETS["tiny"], {"train.max_steps": 2, "inference.alignment_rows": False})
    train_and_evaluate(config, folder, progress=False)
    return folder


def test_a_bundle_is_a_model_that_answers_as_the_run_does(run: Path, tmp_path: Path) -> None:
    files = write_bundle(run, tmp_path / "shared", "me/tiny")
    assert {CARD_FILE, EVALUATION_FILE, "model.json", "words.safetensors"} <= set(files)
    assert "training.safetensors" not in files
    first, second = (load_model(folder)[0].state_dict() for folder in (run, tmp_path / "shared"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    frames = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)).numpy()
    answers = [
        load(folder).ground(frames, "person opens the door", duration_s=20) for folder in (run, tmp_path / "shared")
    ]
    assert_agree("start", torch.tensor([a.start_s for a in answers[0]]), torch.tensor([a.start_s for a in answers[1]]))


def test_no_path_of_the_machine_is_in_any_file(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = json.loads((copy / EVALUATION_FILE).read_text(encoding="utf-8"))
    record["provenance"]["options"] = {"features": [str(tmp_path / "features.h5")]}
    (copy / EVALUATION_FILE).write_text(json.dumps(record), encoding="utf-8")
    write_bundle(copy, tmp_path / "shared", "me/tiny")
    for file in (tmp_path / "shared").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file
    assert "features.h5" in (tmp_path / "shared" / EVALUATION_FILE).read_text(encoding="utf-8")


def test_the_folder_of_a_checkpoint_alone_has_no_evaluation(run: Path, tmp_path: Path) -> None:
    files = write_bundle(find_checkpoint(run), tmp_path / "shared", "me/tiny")
    assert EVALUATION_FILE not in files
    assert "was not measured" in (tmp_path / "shared" / CARD_FILE).read_text(encoding="utf-8")


def test_a_folder_with_files_and_a_damaged_model_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match=r"full: exists and is not empty; name a new folder"):
        write_bundle(run, tmp_path / "full", "me/tiny")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    words = find_checkpoint(copy) / "words.safetensors"
    words.write_bytes(words.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"words.safetensors: truncated or damaged"):
        write_bundle(copy, tmp_path / "shared", "me/tiny")
    assert not (tmp_path / "shared").exists()


def test_paths_lose_their_folders_and_other_texts_stay() -> None:
    value = {"a": ["/home/me/x.h5", "runs/y"], "b": {"c": "/data/z", "d": 3, "e": None}, "f": "a / b"}
    assert without_folders(value) == {"a": ["x.h5", "runs/y"], "b": {"c": "z", "d": 3, "e": None}, "f": "a / b"}
