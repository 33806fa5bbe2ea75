"""Memory does not grow with the number of videos: preparing them, and training with features in their file."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmarks.residence import GROWTH, main


def test_memory_of_preparing_and_of_training_from_the_file_does_not_grow_with_the_videos(tmp_path: Path) -> None:
    files, out = tmp_path / "files", tmp_path / "out.json"
    sizes = ["--gigabytes", "0.2", "--width", "512", "--hidden-dim", "16", "--batch-size", "4", "--steps", "2"]
    threads = torch.get_num_threads()
    try:
        assert main([*sizes, "--folder", str(files), "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    record = json.loads(out.read_text(encoding="utf-8"))
    small, large = record["small"], record["large"]
    assert large["videos"] // small["videos"] == GROWTH
    more = large["file_mib"] - small["file_mib"]
    assert more > 170
    for name in ("small", "large"):
        assert record[name]["train_peak_mib"]["disk"] < record[name]["train_peak_mib"]["host"]
    # in memory the difference is there in full
    assert large["train_peak_mib"]["host"] - small["train_peak_mib"]["host"] > 0.9 * more
    assert large["train_peak_mib"]["disk"] - small["train_peak_mib"]["disk"] < 0.2 * more
    assert large["prepare_peak_mib"] - small["prepare_peak_mib"] < 0.2 * more
    assert min(record["step"].values()) > 0
