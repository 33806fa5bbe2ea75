"""What a killed process has left in a run directory: names of our own pattern, which the next run deletes.

Nothing else is ever deleted, and nothing through a symbolic link.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection
from pathlib import Path

from pps_fast.files import TEMPORARY, is_litter, is_temporary
from pps_fast.runs import model_folder
from pps_fast.runs.lock import LOCK_FILE

CHECKPOINTS = "checkpoints"
# all files that a checkpoint may have
_CHECKPOINT_FILES = {value for name, value in vars(model_folder).items() if name.endswith("_FILE")}
_CHECKPOINT = re.compile(r"step_\d{6,}")
_TEMPORARY_CHECKPOINT = re.compile(re.escape(TEMPORARY) + _CHECKPOINT.pattern)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is a directory with the name of a checkpoint, and nothing in it but files of a checkpoint."""
    return _CHECKPOINT.fullmatch(path.name) is not None and _holds_a_checkpoint(path)


def delete_checkpoint(path: Path) -> None:
    """Deletes the directory of a checkpoint; it loses its name first, so that none is ever there in part."""
    temporary = path.with_name(TEMPORARY + path.name)
    if _is_temporary_checkpoint(temporary):
        _delete_directory(temporary)
    if not os.path.lexists(temporary):
        os.rename(path, temporary)
        _delete_directory(temporary)


def delete_leftovers(run: Path) -> None:
    """Deletes what `is_leftover` of a run directory; only its owner may call this (see `lock`)."""
    # the user may have named the run by a link; in it, links are not followed
    for path in _entries(run.resolve()):
        if is_temporary(path):
            path.unlink(missing_ok=True)
    for path in _entries(run / CHECKPOINTS):
        if _is_temporary_checkpoint(path):
            _delete_directory(path)


def has_only_leftovers(run: Path, besides: Collection[str] = ()) -> bool:
    """Whether a directory holds nothing but what a killed process, a desktop or a file system leaves behind.

    Args:
        besides: names of further files that may be there.
    """
    names = (LOCK_FILE, *besides)
    return all(
        _is_leftover(path) or is_litter(path) or (path.name in names and path.is_file() and not path.is_symlink())
        for path in _entries(run.resolve())
    )


def _is_leftover(path: Path) -> bool:
    if path.name == CHECKPOINTS and path.is_dir() and not path.is_symlink():
        return all(_is_temporary_checkpoint(inner) or is_litter(inner) for inner in _entries(path))
    return is_temporary(path)


def _is_temporary_checkpoint(path: Path) -> bool:
    return _TEMPORARY_CHECKPOINT.fullmatch(path.name) is not None and _holds_a_checkpoint(path)


def _holds_a_checkpoint(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    return all(_is_deletable(inner) for inner in _entries(path))


def _is_deletable(path: Path) -> bool:
    """Whether a name in the directory of a checkpoint goes with it."""
    is_file = path.is_file() and not path.is_symlink()
    return is_temporary(path) or (is_file and (path.name in _CHECKPOINT_FILES or is_litter(path)))


def _delete_directory(path: Path) -> None:
    """Deletes a directory of files; one that gets other files meanwhile stays."""
    for inner in _entries(path):
        if _is_deletable(inner):
            inner.unlink(missing_ok=True)
    try:
        path.rmdir()
    except OSError as error:
        # a network file system keeps a deleted file that is still open under another name: the next run deletes that
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise


def _entries(folder: Path) -> list[Path]:
    """Returns the names in a directory, none for what is a link or no directory."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
