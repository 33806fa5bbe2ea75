"""The one packed file of a prepared data set: how it is written, how it is read.

Everything after `python -m pps_fast.prepare` reads this file and nothing else. It is HDF5 of version 2: a data set per
field of `PreparedData`, and the sha256 of each part of the content, which is verified when the file is read. Files of
version 1 had one moment per sample and no sha256; they are still read.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pps_fast.data.record import ARRAYS, OPTIONAL_ARRAYS, feature_recipe
from pps_fast.data.record import SPLITS as SPLITS
from pps_fast.data.record import PreparedData as PreparedData
from pps_fast.files import FullDiskError, Note, replacing
from pps_fast.hdf5 import new_hdf5, open_hdf5, plain_dataset, read_dataset, size_of
from pps_fast.machine import require_space
from pps_fast.reading import Refused, cause_of, reading

FORMAT = "pps_fast.prepared"
VERSION = 2

_STRINGS = ("video_ids", "words", "sentences", "split")
# texts that a file may lack
_OPTIONAL_STRINGS = ("kind",)
# kept as one text of JSON each
_JSON = ("provenance", "query_id", "recipe")


def check_output(path: Path) -> None:
    """Checks, before the work is done, that a prepared file may be written to a path.

    Raises:
        ValueError: when the folder does not exist, or when `path` is there and is not a prepared file itself.
    """
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; create it or choose another output")
    if path.is_dir():
        raise ValueError(f"{path}: a folder; name a file for the output")
    if path.exists() and not _has_mark(path):
        raise ValueError(f"{path}: exists and is not a prepared file; move it away or choose another output")


def _has_mark(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("format") == FORMAT
    except OSError:
        return False


def write_prepared(path: str | Path, data: PreparedData) -> None:
    """Writes `data` to `path` as HDF5: all of it or nothing; the same data gives the same bytes.

    Raises:
        ValueError: as `check_output`, or when writing fails, for instance for want of space.
    """
    path = Path(path)
    check_output(path)
    try:
        _write(path, data)
    except FullDiskError as error:
        # its message names the file, the reason and the remedy
        raise ValueError(str(error)) from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {cause_of(error)}") from error


def _write(path: Path, data: PreparedData) -> None:
    fields = {name: getattr(data, name) for name in (*ARRAYS, *OPTIONAL_ARRAYS, *_STRINGS, *_OPTIONAL_STRINGS, *_JSON)}
    fields = {name: value for name, value in fields.items() if value is not None}
    texts = {name: [str(text) for text in fields[name]] for name in (*_STRINGS, *_OPTIONAL_STRINGS) if name in fields}
    # data sets and no attributes: HDF5 limits attributes to 64 KiB
    records = {name: json.dumps(fields[name], sort_keys=True) for name in _JSON if name in fields}
    arrays = {name: fields[name] for name in (*ARRAYS, *OPTIONAL_ARRAYS) if name in fields}
    size = size_of(arrays.values(), [*texts.values(), *([record] for record in records.values())])
    require_space(path, size)
    with replacing(path) as temporary, new_hdf5(temporary, size) as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["content"] = json.dumps(data.content, sort_keys=True)
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        for name, text in {**texts, **records}.items():
            file.create_dataset(name, data=text, dtype=h5py.string_dtype())


def read_prepared(path: str | Path) -> PreparedData:
    """Reads a file of `write_prepared` into memory and verifies its content.

    Raises:
        ValueError: for a missing, foreign, truncated, damaged or newer file; the message says which and what to do.
    Warns:
        Note: for a file of version 1, which has no sha256 to verify.
    """
    path = Path(path)
    remedy = "write it with `python -m pps_fast.prepare`"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {remedy}")
    with reading(path), open_hdf5(path) as file:
        format_mark, version = file.attrs.get("format"), file.attrs.get("version")
        if format_mark == FORMAT and version in (1, VERSION):
            values = _read_fields(file, int(version), path.stat().st_size)
            written = None if version == 1 else json.loads(file.attrs["content"])
    if format_mark != FORMAT:
        raise ValueError(f"{path}: an HDF5 file, but not one of prepared data (no mark {FORMAT!r}); {remedy}")
    if version not in (1, VERSION):
        raise ValueError(
            f"{path}: prepared data of version {version}, this pps_fast reads 1 and {VERSION}; {remedy} again"
        )
    return _verified(path, values, written, remedy)


def _verified(path: Path, values: dict[str, Any], written: dict[str, str] | None, remedy: str) -> PreparedData:
    """Returns the data set of a file's fields, compared with the sha256 that were written with them."""
    try:
        data = PreparedData(**values)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if written is None:
        warnings.warn(
            f"{path}: prepared by an older pps_fast (version 1), so that damage cannot be detected; "
            "prepare it again to have its content verified",
            Note,
            stacklevel=3,
        )
        return data
    changed = sorted(name for name in data.content if data.content[name] != written.get(name))
    if changed:
        raise ValueError(
            f"{path}: damaged: {', '.join(changed)} are not what was written (sha256); copy the file again or {remedy}"
        )
    return data


def _read_fields(file: h5py.File, version: int, file_size: int) -> dict[str, Any]:
    """Returns the fields of `PreparedData` in a file; a file of version 1 has moment_s for the windows."""
    windows = {"window_s", "window_sample"} if version == 1 else set()
    names = [name for name in ARRAYS if name not in windows]
    names += [name for name in OPTIONAL_ARRAYS if name in file]
    # before anything is allocated: a flipped bit in a shape can ask for any amount of memory
    if any(plain_dataset(file, name).nbytes > file_size for name in [*names, *(["moment_s"] if windows else [])]):
        raise Refused("a data set is larger than its file, which is damaged; copy it again")
    values: dict[str, Any] = {name: read_dataset(file, name) for name in names}
    strings = [*_STRINGS, *(name for name in _OPTIONAL_STRINGS if name in file)]
    values.update({name: plain_dataset(file, name).asstr()[()].tolist() for name in strings})
    for name in ("split", *_OPTIONAL_STRINGS):
        if name in values:
            values[name] = np.array(values[name])
    values.update(
        {
            name: json.loads(plain_dataset(file, name).asstr()[()])
            for name in _JSON
            if name in file or name == "provenance"
        }
    )
    if version == 1:
        values["window_s"] = read_dataset(file, "moment_s")
        values["window_sample"] = np.arange(len(values["window_s"]))
        source = values["provenance"].get("sources", {}).get("features")
        if source is not None:
            values["recipe"] = feature_recipe([source], values["features"].shape[1])
    return values
