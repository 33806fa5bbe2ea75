"""Where features of videos are kept: each finished video at once in a file of its own, all of them at the end in one.

    OUT.parts/VIDEO.npz    a finished video; written whole or not at all, so that a kill at any moment loses none
    OUT                    HDF5 as `prepare` reads it (see `pps_fast.prepare.readers.extracted`), replaced as a whole

A finished video is known by name, recipe, and its file's size, beginning and end, wherever the file lies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pps_fast.arrays import open_npz
from pps_fast.features.extract import Extracted
from pps_fast.files import replacing
from pps_fast.hdf5 import new_hdf5, open_hdf5, plain_dataset, read_dataset
from pps_fast.prepare.readers.extracted import FORMAT, read_recipe
from pps_fast.reading import FAILURES, reading, require_file, shown
from pps_fast.runs.lock import owning

PARTS = ".parts"
"""what follows the name of the file in that of the folder of finished videos"""
_ENDING = ".npz"
_SAMPLE = 1 << 20
# of a data set with its attributes, and of the file
_OVERHEAD = 16 << 10


def fingerprint(path: Path) -> str:
    """Returns a sha256 over a file's size, its first and its last MiB: another video has another one.

    Raises:
        ValueError: for what is no regular file, as a pipe, which would never be opened.
    """
    require_file(path)
    digest = hashlib.sha256()
    with reading(path), open(path, "rb") as file:
        size = path.stat().st_size
        digest.update(f"{size}\n".encode())
        digest.update(file.read(_SAMPLE))
        file.seek(max(size - _SAMPLE, 0))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def write_part(path: Path, extracted: Extracted, recipe: dict[str, Any], mark: str) -> None:
    """Writes the features of one video to a file of its own, whole or not at all.

    Args:
        mark: the video's `fingerprint`.
    """
    record = json.dumps({"format": FORMAT, "recipe": recipe, "video": mark, "note": extracted.note})
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, features=extracted.features, duration_s=extracted.duration_s, record=np.array(record))


def read_part(path: Path, recipe: dict[str, Any], mark: str | None) -> Extracted | None:
    """Returns the features of one video; None where the file is not there, not whole, or of another recipe or video.

    Args:
        mark: the video's `fingerprint`; None takes any.
    """
    try:
        with open_npz(path) as archive:
            record = json.loads(str(archive.load("record")))
            if (record["format"], record["recipe"]) != (FORMAT, recipe) or mark not in (None, record["video"]):
                return None
            features, duration_s = archive.load("features"), float(archive.load("duration_s"))
            return Extracted(features=features, duration_s=duration_s, note=record["note"])
    except FAILURES:
        return None


def is_part(path: Path) -> bool:
    """Whether a file is one that `write_part` has written, of whatever video."""
    try:
        with open_npz(path) as archive:
            return bool(json.loads(str(archive.load("record")))["format"] == FORMAT)
    except FAILURES:
        return False


class FeatureStore:
    """The file of features that is being made; see the top of this file. Made by `open_store`.

    Attributes:
        out: the file.
        finished: video -> fingerprint, of all that are in it or in a part.
    """

    def __init__(self, out: Path, recipe: dict[str, Any], earlier: h5py.File | None) -> None:
        self.out, self.parts, self._recipe, self._earlier = out, parts_of(out), recipe, earlier
        self.finished: dict[str, str] = {}
        if earlier is not None:
            with reading(out):
                self.finished = {name: str(plain_dataset(earlier, name).attrs.get("video", "")) for name in earlier}

    def has(self, video: str, mark: str) -> bool:
        """Whether the features of a video are there."""
        if self.finished.get(video) == mark:
            return True
        if read_part(self._part(video), self._recipe, mark) is None:
            return False
        self.finished[video] = mark
        return True

    def add(self, video: str, extracted: Extracted, mark: str) -> None:
        """Keeps the features of a video, on the disk when this returns."""
        write_part(self._part(video), extracted, self._recipe, mark)
        self.finished[video] = mark

    def count(self, videos: Iterable[str]) -> int:
        """Returns how many videos are finished, also one that a Ctrl-C met between its file and its record."""
        names = list(videos)
        num_known = sum(name in self.finished for name in names)
        parts = (read_part(self._part(name), self._recipe, None) for name in names if name not in self.finished)
        return num_known + sum(part is not None for part in parts)

    def finish(self) -> None:
        """Writes all finished videos into the one file, and deletes the files of single ones that are in it."""
        names = sorted(self.finished)
        parts = [name for name in names if self._part(name).is_file()]
        if not parts or not names:
            return
        room = sum(self._size(name) for name in names) + _OVERHEAD
        with replacing(self.out) as temporary, new_hdf5(temporary, room) as file:
            file.attrs["format"], file.attrs["recipe"] = FORMAT, json.dumps(self._recipe)
            for name in names:
                extracted = self._read(name)
                file[name] = extracted.features
                file[name].attrs["duration_s"] = extracted.duration_s
                file[name].attrs["video"] = self.finished[name]
        for name in parts:
            self._part(name).unlink()

    def _part(self, video: str) -> Path:
        return self.parts / f"{video}{_ENDING}"

    def _size(self, video: str) -> int:
        part = self._part(video)
        if part.is_file() or self._earlier is None:
            return part.stat().st_size + _OVERHEAD
        with reading(self.out):
            return int(plain_dataset(self._earlier, video).nbytes) + _OVERHEAD

    def _read(self, video: str) -> Extracted:
        extracted = read_part(self._part(video), self._recipe, self.finished[video])
        if extracted is not None:
            return extracted
        if self._earlier is None or video not in self._earlier:
            raise ValueError(f"{shown(self._part(video))}: was changed or removed meanwhile; repeat the command")
        with reading(self.out):
            length = float(self._earlier[video].attrs["duration_s"])
            return Extracted(features=read_dataset(self._earlier, video), duration_s=length)


@contextmanager
def open_store(out: Path, recipe: dict[str, Any]) -> Iterator[FeatureStore]:
    """Opens a file of features to add videos to it, or begins one; no other process can do so meanwhile.

    Raises:
        ValueError: for a file that is not of this program, was made in another way, or is in use.
    """
    if out.is_dir():
        raise ValueError(f"--out {shown(out)}: a folder; name the file of features to write")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {shown(out)}: its folder is not there; make it, or name another")
    with ExitStack() as stack:
        earlier = stack.enter_context(_earlier(out, recipe)) if out.exists() else None
        stack.enter_context(owning(parts_of(out)))
        yield FeatureStore(out, recipe, earlier)
    _remove_empty(parts_of(out))


def parts_of(out: Path) -> Path:
    """Returns the folder of finished videos beside a file of features."""
    return out.with_name(out.name + PARTS)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        # another process may just have begun to use it
        with suppress(OSError):
            folder.rmdir()


def _earlier(out: Path, recipe: dict[str, Any]) -> h5py.File:
    file = open_hdf5(out)
    try:
        with reading(out):
            written = read_recipe(file)
    except ValueError:
        file.close()
        raise
    if written == recipe:
        return file
    file.close()
    if written is None:
        raise ValueError(f"--out {shown(out)}: not written by this program, and is not replaced; name another file")
    # encoder and rate first, from which the others mostly follow
    names = [name for name in {**recipe, **written} if written.get(name) != recipe.get(name)][:2]
    differs = "; ".join(f"{name} {written.get(name)}, now {recipe.get(name)}" for name in names)
    raise ValueError(f"--out {shown(out)}: its features were made in another way ({differs}); name another file")
