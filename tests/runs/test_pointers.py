"""Pointers name the checkpoints to use; what none of them names is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

from pps_fast.runs.pointers import point, prune, read_pointer


def _checkpoint(run: Path, step: int) -> Path:
    path = run / "checkpoints" / f"step_{step:06d}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "training.safetensors", "checkpoint.json"):
        (path / name).write_text("x")
    return path


def test_pointer_reads_back_with_what_was_written_beside_it(tmp_path):
    assert read_pointer(tmp_path, "best") is None
    point(tmp_path, "best", _checkpoint(tmp_path, 3), step=3, mIoU=0.5)
    assert read_pointer(tmp_path, "best") == {"checkpoint": "checkpoints/step_000003", "step": 3, "mIoU": 0.5}


def test_only_what_is_pointed_to_is_kept(tmp_path):
    point(tmp_path, "best", _checkpoint(tmp_path, 1))
    for step in (2, 3):
        point(tmp_path, "latest", _checkpoint(tmp_path, step))
    (tmp_path / "checkpoints" / ".tmp-step_000009").mkdir()
    prune(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_000001", "step_000003"]


def test_what_is_not_ours_stays_through_every_pruning(tmp_path):
    folder = tmp_path / "checkpoints"
    old, foreign = _checkpoint(tmp_path, 1), _checkpoint(tmp_path / "elsewhere", 7)
    shutil.copytree(old, folder / "my_backup")
    (_checkpoint(tmp_path, 2) / "notes.txt").write_text("mine")
    (folder / "step_000007").symlink_to(foreign)
    for name in (".nfs0001", ".DS_Store", "notes.txt"):
        (folder / name).write_text("mine")
    point(tmp_path, "latest", _checkpoint(tmp_path, 3))
    prune(tmp_path)
    left = {".nfs0001", ".DS_Store", "notes.txt", "my_backup", "step_000002", "step_000003", "step_000007"}
    assert {path.name for path in folder.iterdir()} == left
    assert len(list((folder / "my_backup").iterdir())) == len(list(foreign.iterdir())) == 3


def test_a_folder_of_checkpoints_behind_a_link_is_not_pruned(tmp_path):
    _checkpoint(tmp_path / "elsewhere", 7)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere" / "checkpoints")
    prune(tmp_path / "run")
    assert (tmp_path / "elsewhere" / "checkpoints" / "step_000007").is_dir()
