"""Files of torch.save: plain tensors are read, bombs and what torch warns of are refused quietly and in time."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from pps_fast.reading import FAILURES, Refused
from pps_fast.torch_files import load_plain

CONTENT = {"x": torch.arange(6.0).reshape(2, 3), "step": 3}


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_and_plain_values_are_read_in_both_forms(is_zip, tmp_path):
    torch.save(CONTENT, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    content = load_plain(tmp_path / "a.pt")
    assert torch.equal(content["x"], CONTENT["x"]) and content["step"] == 3


def _with_pickle(path: Path, content: bytes, is_zip: bool) -> Path:
    torch.save(CONTENT, path)
    if not is_zip:
        path.write_bytes(content)
        return path
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, member in members.items():
            file.writestr(name, content if name.endswith("data.pkl") else member)
    return path


@pytest.mark.parametrize("is_zip", [True, False])
def test_tuples_of_one_hash_are_refused_before_they_are_hashed(is_zip, tmp_path):
    content = pickle.dumps({tuple(-1 - (number >> bit & 1) for bit in range(15)): 0 for number in range(9)}, protocol=2)
    with pytest.raises(Refused, match="tuples or sets as names"):
        load_plain(_with_pickle(tmp_path / "a.pt", content, is_zip))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("content", [pickle.dumps([1], protocol=5), b"cos\nsystem\n(S'true'\ntR.", b"", b"\x80\x02]"])
def test_what_is_no_file_of_plain_tensors_is_refused_without_a_warning(content, is_zip, tmp_path):
    path = _with_pickle(tmp_path / "a.pt", content, is_zip)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FAILURES):
            load_plain(path)


def test_an_archive_that_unpacks_to_more_than_there_is_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(100 << 20))
        for number in range(4):
            file.writestr(f"a/data/{number}", bytes(100 << 20))
    with pytest.raises((Refused, ValueError)):
        load_plain(tmp_path / "a.pt")
