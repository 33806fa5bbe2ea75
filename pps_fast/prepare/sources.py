"""Describes source files for the provenance: name, size and hash, without paths or dates."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pps_fast.prepare.feature_options import FeatureSource
from pps_fast.prepare.readers.features import FeatureReader
from pps_fast.prepare.readers.joined import JOINING, AnyReader, JoinedReader

_CHUNK = 1 << 20


def describe_source(path: Path) -> dict[str, Any]:
    """Returns name, bytes and sha256 of a file, or name and number of files of a folder."""
    if path.is_dir():
        return {"folder": path.name, "files": sum(entry.is_file() for entry in path.iterdir())}
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def describe_features(sources: list[FeatureSource], reader: AnyReader) -> dict[str, Any]:
    """Returns the record of features that were read: of the one source, or of all and how they were joined."""
    if not isinstance(reader, JoinedReader):
        record = {**describe_source(sources[0].path), "format": reader.file_format, "checks": dict(reader.counts)}
        return {**record, **_extraction(reader)}
    records = []
    for source in sources:
        one = reader.readers[str(source.name)]
        record = {"source": source.name, **describe_source(source.path), "format": one.file_format, "key": source.key}
        record |= {"width": reader.widths.get(one.name), "checks": dict(one.counts)}
        records.append({**record, **_extraction(one)})
    return {"format": reader.file_format, "joining": JOINING, "sources": records, "checks": reader.checks()}


def _extraction(reader: FeatureReader) -> dict[str, Any]:
    """Returns how `python -m pps_fast.features` made features; nothing for those of somebody else."""
    return {} if reader.told.recipe is None else {"extraction": reader.told.recipe}
