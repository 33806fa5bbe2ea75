"""Where a page may be written, where the files of its videos lie, and how it names them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from pps_fast.reading import reading

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
"""of files that are taken for videos, as `features.decode` has them, which takes longer to load"""
GENERATOR = "pps_fast "
"""how a page begins to say what wrote it"""
# of a page, which has its generator within them
_NUM_BYTES = 1000


def video_files(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Returns the file of each video that a folder has, the folders in it included, by the video's name.

    A name is that of a file, with or without its ending, or its path from `root`. Where several files would do, the one
    that lies least deep is taken, then the first by name. Nothing outside `root` is ever named.

    Raises:
        ValueError: for a folder that is not there.
    """
    require_root(root)
    files: dict[str, Path] = {}
    paths = [
        Path(folder, name)
        for folder, _, inside in os.walk(root)
        for name in inside
        if Path(name).suffix.lower() in SUFFIXES
    ]
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        relative = path.relative_to(root)
        for name in (str(relative), str(relative.with_suffix("")), path.name, path.stem):
            files.setdefault(name, path)
    return {name: files[name] for name in names if name in files}


def links(page: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """Returns the address of each file as a page names it: relative to the page, so that both can be moved together.

    Args:
        page: the page's file.
        files: by the names of the videos.
    """
    folder = os.path.abspath(page.parent)
    # bytes, as names of files need not be text
    return {name: quote(os.fsencode(os.path.relpath(os.path.abspath(path), folder))) for name, path in files.items()}


def require_page(path: Path) -> None:
    """Refuses a path to write a page to that has no folder, or that is something else than a page.

    Raises:
        ValueError: which names the path and what to do.
    """
    if not path.parent.is_dir():
        raise ValueError(f"--html {path}: its folder is not there; make it, or name another")
    if path.is_file() and path.stat().st_size and f'content="{GENERATOR}'.encode() not in _first_bytes(path):
        raise ValueError(f"--html {path}: is there, and no page of this program; name another file")
    if path.exists() and not path.is_file():
        raise ValueError(f"--html {path}: a folder, pipe or device; name a file")


def require_root(root: Path | None) -> None:
    """Refuses a folder of videos that is not there.

    Raises:
        ValueError: which names it.
    """
    if root is not None and not root.is_dir():
        raise ValueError(f"--video-root {root}: no folder; name the one where the files of the videos lie")


def _first_bytes(path: Path) -> bytes:
    with reading(path), path.open("rb") as file:
        return file.read(_NUM_BYTES)
