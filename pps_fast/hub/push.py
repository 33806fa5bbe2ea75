"""Uploads a folder to a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from pps_fast.prepare.readers.encoder_folder import import_hub
from pps_fast.reading import brief

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def require_name(name: str) -> None:
    """Raises ValueError for what is no USER/NAME."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name}: expected USER/NAME, letters, digits, '-', '_' and '.'; for example me/charades")


def push_folder(folder: Path, name: str, *, is_private: bool, message: str) -> str:
    """Uploads all files of a folder in one commit, into a repository that is made where it is not there.

    Args:
        name: USER/NAME.
    Returns:
        the address of the commit, as the hub tells it.
    Raises:
        ValueError: in one sentence, where the library is missing or the hub refuses or cannot be reached.
    """
    hub = import_hub(f"push {name}: needs the library huggingface_hub", "hub")
    try:
        api = hub.HfApi()
        api.create_repo(name, private=is_private, exist_ok=True)
        answer = api.upload_folder(folder_path=str(folder), repo_id=name, commit_message=message)
    # the library and what it calls for the network raise errors of many kinds
    except Exception as error:
        raise ValueError(
            f"push {name}: the hub did not take it ({brief(error)}); log in with `hf auth login`, and see that the "
            "name is yours"
        ) from error
    return str(getattr(answer, "commit_url", answer))
