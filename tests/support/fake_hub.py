"""A Hugging Face Hub that is a folder of this machine, in place of the library huggingface_hub."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class FolderHub:
    """Repositories are folders below `root`; `asked` has what was called, in order.

    Args:
        root: repositories.
        cache: what was downloaded.
    """

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.asked.append(("create_repo", {"repo_id": repo_id, **options}))
        (self.root / repo_id).mkdir(parents=True, exist_ok=options["exist_ok"])

    def upload_folder(self, *, folder_path: str, repo_id: str, commit_message: str) -> Any:
        self.asked.append(("upload_folder", {"repo_id": repo_id, "commit_message": commit_message}))
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"folder:{repo_id}")

    def model_info(self, name: str, **_: Any) -> Any:
        if not (self.root / name).is_dir():
            raise OSError(f"no repository {name}")
        files = [SimpleNamespace(rfilename=file.name) for file in (self.root / name).iterdir()]
        return SimpleNamespace(siblings=files)

    def snapshot_download(self, *, repo_id: str, revision: str | None, **options: Any) -> str:
        self.asked.append(("snapshot_download", {"repo_id": repo_id, "revision": revision, **options}))
        folder = self.cache / repo_id
        if options.get("local_files_only"):
            if not folder.is_dir():
                raise FileNotFoundError("not in the cache")
            return str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in options["allow_patterns"]:
            for file in (self.root / repo_id).glob(pattern):
                shutil.copy(file, folder)
        return str(folder)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FolderHub:
    """Puts a hub of the folder in the library's place."""
    hub = FolderHub(folder / "hub", folder / "cache")
    library: Any = ModuleType("huggingface_hub")
    library.snapshot_download, library.HfApi = hub.snapshot_download, lambda: hub
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    return hub
