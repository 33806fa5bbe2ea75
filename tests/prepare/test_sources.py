"""Sources in the provenance."""

from __future__ import annotations

import hashlib

from pps_fast.prepare.sources import describe_source


def test_a_file_is_named_without_its_folder_and_hashed_whole(tmp_path):
    content = b"x" * ((1 << 20) + 3)
    (tmp_path / "a.bin").write_bytes(content)
    assert describe_source(tmp_path / "a.bin") == {
        "file": "a.bin",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_a_folder_is_named_with_its_number_of_files(tmp_path):
    folder = tmp_path / "clips"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.npy", "b.npy"):
        (folder / name).write_bytes(b"")
    assert describe_source(folder) == {"folder": "clips", "files": 2}
