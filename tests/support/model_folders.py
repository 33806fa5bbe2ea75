"""Model folders that were changed by hand, or written by an older version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pps_fast.runs.model_folder import sealed


def reseal(folder: Path) -> None:
    """Makes the sha256 in model.json those of the files that are there."""
    path = folder / "model.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in values["files"]}
    path.write_text(json.dumps(sealed(values)), encoding="utf-8")


def as_older_version(folder: Path, data: dict[str, Any]) -> None:
    """Makes a folder what versions before model.json wrote: checkpoint.json, weights and state of training."""
    path = folder / "model.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for name in ("files", "sha256", "environment"):
        del values[name]
    values |= {"format": "pps_fast.checkpoint", "torch": "2.0"}
    values["data"] = {"name": data["name"], "sha256": data["origin_sha256"]}
    (folder / "checkpoint.json").write_text(json.dumps(values), encoding="utf-8")
    for name in ("model.json", "words.safetensors", "statistics.safetensors", "recipe.json"):
        (folder / name).unlink()
