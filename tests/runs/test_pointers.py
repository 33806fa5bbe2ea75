"""Pointers name the checkpoints to use; what none of them names is deleted."""

from __future__ import annotations

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
