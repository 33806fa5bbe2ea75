"""Who a process is, what part of a batch it has, and that a world of one changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pps_fast.distributed import ALONE, Place, World, place_of

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


def _world(rank: int, size: int) -> World:
    world = World()
    world.place = Place(rank=rank, size=size)
    return world


def test_torchrun_tells_a_process_its_place() -> None:
    place = place_of(TORCHRUN)
    assert (place.rank, place.size, place.local_rank, place.name) == (5, 8, 1, "rank 5 of 8")
    # of its machine; where nobody says that, there may be as many as in all
    sizes = {"4": 4, "": 8, "1": 8, "9": 8, "x": 8}
    assert {text: place_of({**TORCHRUN, "LOCAL_WORLD_SIZE": text}).local_size for text in sizes} == sizes


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # a job of Slurm whose shell or copies are no processes of torchrun
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "RANK": "3"},
        {"WORLD_SIZE": "1"},
        {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    ],
)
def test_a_process_that_nobody_has_joined_to_others_is_alone(variables: dict[str, str]) -> None:
    assert place_of(variables) == Place()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_world_size_without_the_rest_is_refused_naming_what_is_missing(name: str) -> None:
    variables = {one: value for one, value in TORCHRUN.items() if one != name}
    with pytest.raises(ValueError, match=rf"^WORLD_SIZE = 8 is set .*, but not {name}: .* unset WORLD_SIZE$"):
        place_of(variables)


@pytest.mark.parametrize("change", [{"RANK": "8"}, {"RANK": "-1"}, {"WORLD_SIZE": "four"}, {"LOCAL_RANK": "6"}])
def test_a_place_that_cannot_be_is_refused(change: dict[str, str]) -> None:
    (value,) = change.values()
    with pytest.raises(ValueError, match=rf"= {value}.* in the environment: expected numbers with 0 <= LOCAL_RANK"):
        place_of({**TORCHRUN, **change})


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 32, 33])
def test_the_shares_of_a_batch_are_all_of_it_in_order_and_as_equal_as_can_be(size: int, count: int) -> None:
    samples = np.arange(100, 100 + count)
    shares = [_world(rank, size).share(count) for rank in range(size)]
    assert all(_world(rank, size).shares(count) == shares for rank in range(size))
    parts = [share.rows(samples) for share in shares if share.count]
    assert np.concatenate(parts).tolist() == samples.tolist()
    assert max(share.count for share in shares) - min(share.count for share in shares) <= 1
    assert sum(share.weight for share in shares) == pytest.approx(1, abs=1e-15)
    # who has none computes a sample that does not count, for the sake of what all compute together
    assert all(share.rows(samples).tolist() == [100] and share.weight == 0 for share in shares if not share.count)


def test_a_world_of_one_returns_everything_as_it_is() -> None:
    values = torch.tensor([1.0, -0.0, float("nan")])
    before = values.clone()
    for change in (ALONE.sum_, ALONE.merge_, ALONE.broadcast_):
        change(values)
    assert torch.equal(values.view(torch.int32), before.view(torch.int32))
    assert ALONE.any_of([True, False]) == [True, False] and ALONE.largest(-3) == -3 and ALONE.tell("so") == "so"
    ALONE.require_same(step=1)
    assert ALONE.is_first and ALONE.size == 1 and ALONE.device("cpu") == torch.device("cpu")
