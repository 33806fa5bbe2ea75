"""Where features live: chosen by size, and batches bring the same values from anywhere."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.data import residence
from pps_fast.data.feature_file import FeatureFile
from pps_fast.data.residence import BatchReader, describe_residence, fits, moved, residence_on

VALUES = np.random.default_rng(0).standard_normal((9, 4, 3)).astype(np.float16)
BATCHES = [np.array([0, 3, 8]), np.array([1, 2]), np.array([5])]


@pytest.fixture
def in_file(tmp_path: Path) -> FeatureFile:
    (tmp_path / "x").write_bytes(b"head" + VALUES.tobytes())
    return FeatureFile(tmp_path / "x", 4, VALUES.shape, VALUES.dtype)


@pytest.mark.parametrize(
    ("device", "is_file", "free", "wanted", "expected"),
    [
        ("cpu", False, 0, "auto", "device"),
        ("cpu", False, 0, "host", "device"),
        ("cpu", True, 1 << 40, "auto", "disk"),
        ("cuda", False, 2 * VALUES.nbytes, "auto", "device"),
        ("cuda", False, 2 * VALUES.nbytes - 1, "auto", "host"),
        ("cuda", False, None, "auto", "device"),
        ("cuda", False, 1 << 40, "host", "host"),
        ("cuda", False, 0, "device", "device"),
        ("cuda", True, 2 * VALUES.nbytes, "auto", "device"),
        ("cuda", True, 2 * VALUES.nbytes - 1, "auto", "disk"),
        ("cuda", True, 1 << 40, "disk", "disk"),
        ("cuda", True, 0, "device", "device"),
    ],
)
def test_auto_goes_by_the_size_and_everything_else_is_as_asked(
    device, is_file, free, wanted, expected, in_file, monkeypatch
):
    monkeypatch.setattr(residence, "free_memory_of", lambda device: free)
    features = in_file if is_file else VALUES
    assert residence_on(torch.device(device), features, wanted) == expected


def test_half_of_the_memory_is_for_features():
    assert fits(50, 100) and not fits(51, 100) and fits(1 << 60, None)


def test_it_is_said_where_features_live_and_why(in_file):
    assert describe_residence(in_file, "disk", "auto") == (
        "features of 216 bytes read from the file (by size: data.residence = 'auto')"
    )
    assert describe_residence(VALUES, "device", "device") == "features of 216 bytes on the device"


@pytest.mark.parametrize("is_file", [False, True], ids=["host", "disk"])
@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
def test_batches_are_the_videos_asked_for_announced_or_not(is_file, ahead, in_file):
    reader = BatchReader(in_file if is_file else VALUES, torch.device("cpu"))
    for number, videos in enumerate(BATCHES):
        taken = reader.take(videos)
        reader.announce(BATCHES[number + 1 : number + 1 + ahead])
        assert torch.equal(taken, torch.from_numpy(VALUES[videos]))
    # another than the announced one
    reader.announce(BATCHES[:1])
    assert torch.equal(reader.take(BATCHES[1]), torch.from_numpy(VALUES[BATCHES[1]]))


def test_what_is_announced_is_read_by_a_thread_once_and_while_this_one_goes_on(in_file, monkeypatch):
    threads, gate, read = [], threading.Event(), FeatureFile.read

    def slow(self, videos, out=None):
        # a reader of another test may still be at work
        if self is in_file:
            threads.append(threading.current_thread().name)
            assert gate.wait(60)
        return read(self, videos, out)

    monkeypatch.setattr(FeatureFile, "read", slow)
    reader = BatchReader(in_file, torch.device("cpu"))
    reader.announce(BATCHES[:2])
    # announced again, as of every step the next two are
    reader.announce(BATCHES[:2])
    gate.set()
    for videos in BATCHES[:2]:
        assert torch.equal(reader.take(videos), torch.from_numpy(VALUES[videos]))
    assert threads == ["read-ahead_0", "read-ahead_0"]


def test_what_fails_in_the_thread_is_told_where_the_batch_is_taken(in_file):
    in_file.path.write_bytes(b"")
    reader = BatchReader(in_file, torch.device("cpu"))
    reader.announce(BATCHES[:1])
    with pytest.raises(ValueError, match="x: truncated while it was read"):
        reader.take(BATCHES[0])


def test_all_features_move_to_a_device_from_memory_or_file(in_file):
    assert torch.equal(moved(in_file, torch.device("cpu")), torch.from_numpy(VALUES))
    assert moved(VALUES, torch.device("cpu")).data_ptr() == VALUES.ctypes.data


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("is_file", [False, True], ids=["host", "disk"])
def test_batches_come_to_a_gpu(is_file, in_file):
    reader = BatchReader(in_file if is_file else VALUES, torch.device("cuda"))
    for number, videos in enumerate(BATCHES):
        taken = reader.take(videos)
        reader.announce(BATCHES[number + 1 : number + 3])
        assert taken.is_cuda and torch.equal(taken.cpu(), torch.from_numpy(VALUES[videos]))
