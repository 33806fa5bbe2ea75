"""A model folder as it is shared: without the state of training and without paths of this machine, with its card."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pps_fast.files import read_json, replace_bytes, write_json
from pps_fast.hub.card import model_card
from pps_fast.runs.checkpoint import find_checkpoint
from pps_fast.runs.model_folder import (
    HEADER_FILE,
    RECIPE_FILE,
    TRAINING_FILE,
    read_header,
    read_listed,
    sealed,
)

CARD_FILE = "README.md"
EVALUATION_FILE = "evaluation_test.json"


def write_bundle(source: Path, out: Path, name: str) -> list[str]:
    """Writes what is shared of a model into a new or empty folder and returns the names of its files.

    Every file is read and verified first; model.json and recipe.json keep the last part of a path alone, and model.json
    the sha256 of what is written.

    Args:
        source: model folder or run directory; of the latter the table of its last evaluation is in the card.
        out: folder to write to.
        name: USER/NAME, for the commands in the card.
    Raises:
        ValueError: for a folder that is no model or of an older version, or an `out` that has files.
    """
    folder = find_checkpoint(source)
    if not (folder / HEADER_FILE).is_file():
        raise ValueError(f"{folder}: a model of an older version, which is not whole by itself; train or fit it again")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists and is not empty; name a new folder")
    header, evaluation = read_header(folder), _evaluation(source)
    values = read_json(folder / HEADER_FILE, ("files",))
    contents = {}
    for file in values["files"]:
        content = read_listed(folder, file)
        if content is not None and file != TRAINING_FILE:
            contents[file] = _plain_json(content) if file == RECIPE_FILE else content
    values = without_folders(values)
    values["files"] = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    card = model_card(header, json.loads(contents.get(RECIPE_FILE, b"{}")), evaluation, name)
    out.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        replace_bytes(out / file, content)
    if evaluation is not None:
        write_json(out / EVALUATION_FILE, evaluation)
    replace_bytes(out / CARD_FILE, card.encode())
    write_json(out / HEADER_FILE, sealed(values))
    return sorted(file.name for file in out.iterdir())


def _evaluation(source: Path) -> dict[str, Any] | None:
    """Returns the record of a run directory's evaluation on the test split, None where there is none."""
    path = source / EVALUATION_FILE
    if not path.is_file():
        return None
    record: dict[str, Any] = without_folders(read_json(path, ("rows", "num_samples", "split")))
    return record


def _plain_json(content: bytes) -> bytes:
    return (json.dumps(without_folders(json.loads(content)), indent=2) + "\n").encode()


def without_folders(value: Any) -> Any:
    """Returns a JSON value in which each text that is an absolute path is the last part of it."""
    if isinstance(value, dict):
        return {name: without_folders(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    if isinstance(value, str) and value.startswith("/"):
        return Path(value).name
    return value
