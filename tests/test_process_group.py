"""Processes that are joined: what they exchange, and what the others say when one fails, dies or hangs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from pps_fast.cli import exit_status
from pps_fast.distributed import ALONE, Place
from pps_fast.files import FullDiskError
from pps_fast.process_group import Group, LostProcessError, joined
from pps_fast.train.optimizer import Adam
from tests.support.compare import assert_agree
from tests.support.processes import free_port, printed, run, start, wait

TIMEOUT_S = 3.0


def _exchange() -> int:
    with joined(60) as world:
        rank = world.place.rank
        values = torch.tensor([rank + 1.0, float("nan") if rank == 1 else 0.0])
        world.sum_(values)
        merged = torch.zeros(3, dtype=torch.float64)
        merged[rank] = (-0.0, 5e-324, 1 / 3)[rank]
        world.merge_(merged)
        whole = torch.full((2, 2), float(rank)).T
        world.broadcast_(whole)
        numbers = (
            world.any_of([rank == 2, False]),
            world.largest(10 - rank),
            world.tell(f"of rank {rank} \N{DEGREE SIGN}"),
        )
        print(values.tolist(), [value.hex() for value in merged.tolist()], whole.tolist(), *numbers)
    return 0


def test_sums_rows_flags_and_texts_reach_all(tmp_path: Path) -> None:
    texts = run(3, _exchange, output=tmp_path / "out")
    merged = [value.hex() for value in (-0.0, 5e-324, 1 / 3)]
    zeros = [[0.0, 0.0], [0.0, 0.0]]
    expected = f"[6.0, nan] {merged} {zeros} [True, False] 10 of rank 0 \N{DEGREE SIGN}\n"
    assert texts == [expected] * 3


def _first_gradients() -> int:
    """Two parameters, of which one gets its first gradient in one process only, and one nowhere."""
    with joined(60) as world:
        parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(3)]
        adam = Adam(parameters, lr=0.1, weight_decay=0.1, world=world)
        for step in range(2):
            parameters[0].sum().backward()
            if world.place.rank == step or world.size == 1:
                # by one process a step, and there as much as in both together
                parameters[1].square().sum().backward()
            adam.step()
        print([parameter.tolist() for parameter in parameters], len(adam.state))
    return 0


def test_a_first_gradient_in_one_process_moves_the_parameter_in_all(tmp_path: Path) -> None:
    alone = run(1, _first_gradients, output=tmp_path / "alone")
    together = run(2, _first_gradients, output=tmp_path / "together")
    # the first parameter has twice the gradient, which Adam divides out again up to eps
    assert together[0] == together[1]
    numbers = [torch.tensor(json.loads(text.rsplit(" ", 1)[0])) for text in (alone[0], together[0])]
    assert_agree("parameters", *numbers, atol=1e-6)
    assert alone[0].split()[-1] == together[0].split()[-1] == "2"


def _run(name: str) -> int:
    """Runs a function of this file as a program."""
    return exit_status(globals()[name], is_divided=True)


def _differ() -> int:
    with joined(60) as world:
        world.require_same(step=7, samples=100 + world.place.rank // 2)
    return 0


def test_processes_with_other_data_are_refused_and_all_say_why(tmp_path: Path) -> None:
    assert wait(start(3, _run, "_differ", output=tmp_path / "out")) == [2, 2, 2]
    said = "samples is 101, of rank 0 100: start all processes with the same command, code and data\n"
    assert printed(3, tmp_path / "out") == [
        f"error: ended, because rank 2 failed: {said}",
        f"error: rank 1 of 3: ended, because rank 2 failed: {said}",
        f"error: rank 2 of 3: {said}",
    ]


def _all_fail() -> int:
    with joined(60):
        raise ValueError("data.fold = 7: expected one of the prepared folds")


def _full_disk() -> int:
    with joined(60) as world:
        if world.is_first:
            raise FullDiskError("model.safetensors: not written, because the disk is full")
        world.largest(0)
    return 0


def _killed() -> int:
    return _lose(signal.SIGKILL)


def _hangs() -> int:
    return _lose(signal.SIGSTOP)


def _lose(number: int) -> int:
    with joined(TIMEOUT_S) as world:
        gradients = torch.ones(300_000)
        for step in range(1000):
            world.sum_(gradients)
            world.largest(step)
            if step == 3 and world.place.rank == 1:
                os.kill(os.getpid(), number)
    return 0


def test_what_all_refuse_is_said_once(tmp_path: Path) -> None:
    assert wait(start(3, _run, "_all_fail", output=tmp_path / "out")) == [2, 2, 2]
    assert printed(3, tmp_path / "out") == ["error: data.fold = 7: expected one of the prepared folds\n", "", ""]


def test_a_full_disk_of_the_first_process_ends_all_with_its_reason(tmp_path: Path) -> None:
    assert wait(start(2, _run, "_full_disk", output=tmp_path / "out")) == [2, 2]
    reason = "model.safetensors: not written, because the disk is full\n"
    assert printed(2, tmp_path / "out") == [
        f"error: {reason}",
        f"error: rank 1 of 2: ended, because rank 0 failed: {reason}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("_killed", "has died without a word: killed, or out of memory; "),
        ("_hangs", "has not answered for 3 s: it hangs, or does something that takes longer (--timeout-s); "),
    ],
)
def test_a_process_that_dies_or_hangs_ends_the_others_in_time(name: str, what: str, tmp_path: Path) -> None:
    # with four, some wait for one that waits for the one that is lost
    processes = start(4, _run, name, output=tmp_path / "out")
    others = (processes[0], processes[2], processes[3])
    for process in others:
        # all that torchrun would do besides is to end the one that hangs
        process.join(60)
    assert [process.exitcode for process in others] == [2, 2, 2]
    processes[1].kill()
    said = f"ended, because rank 1 {what}what was saved is continued with --resume\n"
    first, _, *rest = printed(4, tmp_path / "out")
    assert [first, *rest] == [f"error: {said}", f"error: rank 2 of 4: {said}", f"error: rank 3 of 4: {said}"]


def test_processes_that_never_come_are_not_waited_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for variable, value in place.items():
        monkeypatch.setenv(variable, str(value))
    with pytest.raises(LostProcessError, match="^the processes have not met: "), joined(1):
        raise RuntimeError("was let in")


def test_one_process_joins_nobody() -> None:
    with joined(60) as world:
        assert world is ALONE
    with pytest.raises(ValueError, match=r"^timeout_s = 0: expected seconds, above 0"):
        joined(0)


@pytest.mark.parametrize("number", [0, 2])
def test_each_process_takes_the_gpu_of_its_number_or_says_that_there_is_none(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    group = Group(Place(rank=number, size=4, local_rank=number), 60)
    assert group.device("cpu") == torch.device("cpu")
    if number < 2:
        assert group.device("auto") == torch.device("cuda", number) and chosen == [number]
        return
    with pytest.raises(ValueError, match=r"process 3 of this machine has no GPU, there are 2; .*--nproc-per-node 2"):
        group.device("auto")
