"""Folders of encoders of the Hugging Face Hub: local, from the hub's cache, or else from the hub; whole or refused.

No code that a folder brings is run. Importing this loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pps_fast.reading import brief, listed, reading

# until the hub must have answered
_PATIENCE_S = 3.0
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PLAIN_WEIGHTS = "pytorch_model.bin"
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What an encoder of a kind is.

    Attributes:
        what: for messages, "sentence encoder".
        extra: which installs what it needs.
        files: patterns of its files in the hub besides the weights.
        parts: sets of files, one of which has to be there whole.
        part: what they make, for messages.
        takes_plain: whether weights that are no safetensors may be read, as plain tensors.
    """

    what: str
    extra: str
    files: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    part: str
    takes_plain: bool = False

    def patterns(self, files: set[str]) -> list[str]:
        """Returns patterns of the files that are fetched, of those that the hub has."""
        is_plain = self.takes_plain and bool(files) and not {_WEIGHTS, _INDEX} & files
        return [*self.files, "pytorch_model*.bin" if is_plain else "*.safetensors"]


def locate_folder(named: str, kind: Kind) -> tuple[Path, str | None]:
    """Returns the whole folder of an encoder, and NAME@REVISION where it is from the hub.

    Args:
        named: folder, NAME or NAME@REVISION.
    Raises:
        ValueError: in one sentence, for an encoder that is not there or not whole, and where the library is not
            installed. Without a network this takes seconds, not minutes.
    """
    hub = import_hub(f"{kind.what} {named}: needs the library transformers", kind.extra)
    if Path(named).is_dir():
        folder, name = Path(named), None
    else:
        folder, name = from_hub(named, kind.what, hub, partial(require_whole, kind=kind), kind.patterns)
    require_whole(folder, kind)
    return folder, name


def import_hub(why: str, extra: str) -> Any:
    """Returns the library huggingface_hub.

    Raises:
        ValueError: beginning with `why`, where it is not installed; `extra` installs it.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(f"{why}; install it with `pip install 'pps-fast[{extra}]'`") from error
    return huggingface_hub


def from_hub(
    named: str, what: str, hub: Any, require: Callable[[Path], None], patterns: Callable[[set[str]], list[str]]
) -> tuple[Path, str]:
    """Returns a folder in the hub's cache, filled from the hub where it is not there whole, and NAME@REVISION.

    Args:
        named: NAME or NAME@REVISION.
        what: it is, for messages.
        hub: the library.
        require: raises ValueError for a folder that is not whole.
        patterns: names of the files in the hub -> patterns of those that are fetched.
    Raises:
        ValueError: in one sentence, for a name that is not to be had; without a network within seconds.
    """
    name, _, revision = named.partition("@")
    download = {"repo_id": name, "revision": revision or None}
    try:
        folder = Path(hub.snapshot_download(**download, local_files_only=True))
        require(folder)
    except (ValueError, OSError) as error:
        files = _require_hub(named, name, revision, hub, error, what)
        try:
            folder = Path(hub.snapshot_download(**download, allow_patterns=patterns(files)))
        except (ValueError, OSError) as failure:
            raise ValueError(f"{what} {named}: not fetched whole ({brief(failure)}); try again") from failure
    return folder, f"{name}@{folder.name}"


def _require_hub(named: str, name: str, revision: str, hub: Any, absent: Exception, what: str) -> set[str]:
    """Returns the files of an encoder; refuses where the hub does not answer within seconds, or does not have it."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(hub.HfApi().model_info(name, revision=revision or None, timeout=_PATIENCE_S))
        # handed over to the other thread, whatever it is
        except Exception as error:
            answers.append(error)

    # names of hosts are looked up without any limit of time
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    answer = answers[0] if answers else TimeoutError("no answer")
    if isinstance(answer, Exception):
        raise ValueError(
            f"{what} {named}: no folder of that name, not whole in the hub's cache, and the hub does not "
            f"have it or cannot be reached ({brief(answer)}); name its folder, or fetch it where there is a network"
        ) from absent
    return {str(file.rfilename) for file in getattr(answer, "siblings", None) or ()}


def require_whole(folder: Path, kind: Kind) -> None:
    """Refuses a folder that lacks a part of an encoder.

    Raises:
        ValueError: naming the part.
    """
    with reading(folder):
        names = {file.name for file in folder.iterdir()}
        weights = {_WEIGHTS}
        if _INDEX in names and _WEIGHTS not in names:
            weights = set(read_json_file(folder / _INDEX)["weight_map"].values())
        elif kind.takes_plain and _PLAIN_WEIGHTS in names and _WEIGHTS not in names:
            weights = {_PLAIN_WEIGHTS}
        missing = sorted(({"config.json"} | weights) - names)
        if missing:
            raise ValueError(f"{folder}: not a whole {kind.what}, it lacks {listed(missing)}; fetch it again")
        if not any(names >= set(files) for files in kind.parts):
            raise ValueError(f"{folder}: not a whole {kind.what}, it lacks {kind.part}; fetch it again")


def read_json_file(path: Path) -> Any:
    """Returns what a file of an encoder holds.

    Raises:
        ValueError: naming the file, where it is damaged.
    """
    with reading(path):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({brief(error)}); fetch the encoder again") from error


def name_of(folder: Path) -> str:
    """Returns name and revision of a folder: the beginning of the sha256 over its weights."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")) or [folder / _PLAIN_WEIGHTS]:
        with open(file, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"
