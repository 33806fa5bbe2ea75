"""What a kill leaves behind is recognized by name and content, and nothing else is deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pps_fast.runs.checkpoint import find_checkpoint
from pps_fast.runs.leftovers import delete_checkpoint, delete_leftovers, has_only_leftovers, is_checkpoint
from tests.support.grounders import alignment_run, network_run


def _checkpoint(folder: Path, name: str = "step_000002", files: tuple[str, ...] = ("model.safetensors",)) -> Path:
    (folder / name).mkdir(parents=True)
    for file in files:
        (folder / name / file).write_text("x")
    return folder / name


def _linked(folder: Path) -> Path:
    _checkpoint(folder / "elsewhere", "step_000009")
    (folder / "step_000009").symlink_to(folder / "elsewhere" / "step_000009")
    return folder / "step_000009"


def _with_linked_file(folder: Path) -> Path:
    path = _checkpoint(folder)
    (folder / "mine").write_text("mine")
    (path / "training.safetensors").symlink_to(folder / "mine")
    return path


def _as_file(folder: Path) -> Path:
    path = folder / "step_000002"
    path.write_text("mine")
    return path


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_checkpoint, True),
        (lambda folder: _checkpoint(folder, files=()), True),
        (lambda folder: _checkpoint(folder, "step_1234567", ("checkpoint.json", ".DS_Store", ".nfs00ab12")), True),
        (lambda folder: _checkpoint(folder, files=("model.safetensors", "notes.txt")), False),
        (lambda folder: _checkpoint(folder, files=("model.safetensors", "notes.json")), False),
        (lambda folder: _checkpoint(folder, "my_backup"), False),
        (lambda folder: _checkpoint(folder, "step_000002_copy"), False),
        (lambda folder: _checkpoint(folder, "step_2"), False),
        (_linked, False),
        (_with_linked_file, False),
        (_as_file, False),
    ],
)
def test_only_a_directory_of_our_name_with_nothing_but_our_files_is_ours(
    make: Callable[[Path], Path], expected: bool, tmp_path: Path
) -> None:
    assert is_checkpoint(make(tmp_path)) is expected


@pytest.mark.parametrize("run", [alignment_run, lambda: network_run("tiny")[0]], ids=["alignment", "networks"])
def test_whatever_a_model_writes_is_deletable_as_a_checkpoint_and_as_a_left_over_of_one(
    run: Callable[[], Path], tmp_path: Path
) -> None:
    checkpoint = find_checkpoint(run())
    assert is_checkpoint(checkpoint) and len(list(checkpoint.iterdir())) > 3
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoints" / f".tmp-{checkpoint.name}")
    assert has_only_leftovers(tmp_path / "run")
    delete_leftovers(tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_deleted_checkpoint_is_gone_whole(tmp_path: Path) -> None:
    # as an earlier kill has left it
    _checkpoint(tmp_path, ".tmp-step_000002", ("checkpoint.json",))
    delete_checkpoint(_checkpoint(tmp_path, files=("model.safetensors", ".DS_Store", ".nfs0001")))
    assert not list(tmp_path.iterdir())


def test_checkpoint_loses_its_name_before_any_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, unlink = _checkpoint(tmp_path), Path.unlink

    def check(file: Path, *arguments: bool, **options: bool) -> None:
        assert not path.exists()
        unlink(file, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", check)
    delete_checkpoint(path)
    assert not list(tmp_path.iterdir())


def test_left_over_files_go_and_all_else_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    _checkpoint(folder, ".tmp-step_000009", ("model.safetensors", ".tmp-training.safetensors@host.77"))
    _checkpoint(folder, ".tmp-step_000010", ("notes.txt",))
    (tmp_path / "run" / ".tmp-config.json.123").write_text("{")
    (tmp_path / "run" / ".tmp-config.json@node-7.123").write_text("{")
    others = [".tmp-mine", ".tmp-", "tmp-config.json.1", "notes.txt", ".nfs0001", ".DS_Store"]
    for name in others:
        (tmp_path / "run" / name).write_text("mine")
    (tmp_path / "run" / ".tmp-link.json.5").symlink_to(tmp_path / "run" / "notes.txt")
    delete_leftovers(tmp_path / "run")
    assert {path.name for path in folder.iterdir()} == {".tmp-step_000010"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*others, "checkpoints", ".tmp-link.json.5"}


def test_checkpoints_behind_a_link_are_left_alone(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "elsewhere", ".tmp-step_000009")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    delete_leftovers(tmp_path / "run")
    assert os.listdir(tmp_path / "elsewhere") == [".tmp-step_000009"]
    assert not has_only_leftovers(tmp_path / "run")


def test_directory_of_left_over_names_alone_counts_as_fresh(tmp_path: Path) -> None:
    run = tmp_path / "run"
    _checkpoint(run / "checkpoints", ".tmp-step_000009")
    for name in (".tmp-config.json@host.9", "lock.json", ".DS_Store", ".nfs0001"):
        (run / name).write_text("")
    (tmp_path / "link").symlink_to(run)
    assert has_only_leftovers(run) and has_only_leftovers(tmp_path / "link")
    (run / "checkpoints" / "step_000001").mkdir()
    assert not has_only_leftovers(run) and not has_only_leftovers(tmp_path / "link")
