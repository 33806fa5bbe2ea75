"""Recordings by shape: one pool of memory, and none that reads memory which was replaced."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.recordings import Recordings
from tests.support.tape import TapeRecorder


class _Program:
    """Twice some of the values of a tensor that may be replaced."""

    def __init__(self) -> None:
        self.values = torch.arange(4.0)
        self.recorder = TapeRecorder(warm_ups=0)
        self.recordings: Recordings[Tensor] = Recordings(lambda: [self.values], self.recorder)

    def __call__(self, count: int) -> Tensor:
        self.recordings.drop_stale()
        recording = self.recordings.find(count) or self.recordings.add(count, lambda: self.values[:count] * 2)
        recording.replay()
        return recording.result


def test_a_shape_is_recorded_once_and_reads_what_lies_in_its_memory_now() -> None:
    program = _Program()
    assert program(3).tolist() == [0, 2, 4] and program(2).tolist() == [0, 2]
    program.values += 1
    assert program(3).tolist() == [2, 4, 6] and program(2).tolist() == [2, 4]
    assert program.recorder.num_recordings == len(program.recordings) == 2


def test_recordings_share_a_pool_so_that_a_replay_spoils_the_results_of_others() -> None:
    program = _Program()
    first, copy = program(3), program(3).clone()
    program(2)
    assert first.isnan().all() and copy.tolist() == [0, 2, 4]


def test_recordings_of_memory_that_was_replaced_are_dropped() -> None:
    program = _Program()
    program(3), program(2)
    kept = program.values
    program.values = torch.full((4,), 5.0)
    assert program.recordings.find(3) is not None
    program.recordings.drop_stale()
    assert program.recordings.find(3) is None and len(program.recordings) == 0
    assert program(3).tolist() == [10, 10, 10]
    # back where the first ones read
    program.values = kept
    assert program(2).tolist() == [0, 2] and program.recorder.num_recordings == 4


def test_a_recording_whose_warm_up_moves_memory_drops_the_earlier_ones() -> None:
    program = _Program()
    program(3)

    def move() -> Tensor:
        program.values = program.values.clone()
        return program.values * 2

    program.recordings.add(4, move)
    assert program.recordings.find(3) is None and len(program.recordings) == 1


def test_a_failed_recording_leaves_the_others() -> None:
    program = _Program()
    program(3)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        program.recordings.add(2, lambda: program.values * program.values.sum().item())
    assert program(3).tolist() == [0, 2, 4]
