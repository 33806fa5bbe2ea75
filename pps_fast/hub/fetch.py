"""Finds a model by the name of its folder, or as USER/NAME of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from pps_fast.prepare.readers.encoder_folder import from_hub, import_hub
from pps_fast.reading import listed, reading
from pps_fast.runs.model_folder import HEADER_FILE

PATTERNS = ("*.json", "*.safetensors")
"""files of a model, of which none is run as code"""
# a repository of the hub, with a revision or without
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def locate_model(named: str | Path) -> Path:
    """Returns the folder of a model: the one of that name, else that of USER/NAME or USER/NAME@REVISION from the hub.

    Args:
        named: a folder that is there is never looked for elsewhere.
    Raises:
        ValueError: for a name of the hub that is not to be had; without a network within seconds.
    """
    path = Path(named)
    if path.exists() or not _NAME.fullmatch(str(named)):
        return path
    hub = import_hub(f"model {named}: no folder of that name, and to fetch it needs the library huggingface_hub", "hub")
    folder, _ = from_hub(str(named), "model", hub, _require_model, lambda _: list(PATTERNS))
    _require_model(folder)
    return folder


def _require_model(folder: Path) -> None:
    with reading(folder):
        names = [file.name for file in folder.iterdir()]
    if HEADER_FILE not in names:
        raise ValueError(f"{folder}: no model of pps_fast, it has {listed(sorted(names)) or 'no file'}; name another")
