"""Files of torch.save from other people: tensors and plain values, read without running code."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from pps_fast.arrays import require_plausible_archive
from pps_fast.pickle_checks import check_pickle
from pps_fast.reading import Refused, require_file

# the older form: this number, then a version, the machine, the content, and the names of its storages
_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_NUM_PICKLES = 5


def load_plain(path: Path) -> Any:
    """Returns what torch.save has stored, on the CPU.

    Raises:
        ValueError, Refused: for a missing file, a bomb, or a pickle that would take for ever.
        Others of `reading.FAILURES`: for a damaged file, or one that holds more than tensors and plain values.
    """
    require_file(path)
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            require_plausible_archive(archive.infolist())
            for info in archive.infolist():
                if info.filename.endswith("data.pkl"):
                    check_pickle(io.BytesIO(archive.read(info)), info.file_size)
    else:
        with open(path, "rb") as file:
            _check_older(file, size)
    with warnings.catch_warnings():
        # torch warns of what it then refuses
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_older(file: IO[bytes], size: int) -> None:
    """Checks the pickles of a file of torch before 1.6; anything else is torch's to refuse."""
    if file.read(len(_MAGIC)) != _MAGIC:
        file.seek(0)
    for _ in range(_NUM_PICKLES):
        if not file.read(1):
            return
        file.seek(-1, io.SEEK_CUR)
        try:
            check_pickle(file, size)
        except Refused:
            raise
        except (ValueError, KeyError, IndexError):
            return
