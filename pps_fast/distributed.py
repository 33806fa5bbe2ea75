"""Several processes that train one model: which one this is, and what they have in common.

`torchrun` starts the processes and tells each its place by environment variables. A single process is a `World` of its
own, in which every method is trivial, so that the code of training and evaluation is the same; several are joined by
`process_group`. Importing this file loads no torch.

Letters: M rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pps_fast.devices import Device, choose_device

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

TIMEOUT_S = 600
"""default of how long a process waits for another one"""
# what torchrun tells every process
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which of the processes this one is.

    Attributes:
        rank: 0 to size - 1.
        size: number of processes.
        local_rank: number of the process on its machine.
        local_size: number of processes on its machine; of all where that is not told.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def name(self) -> str:
        """As messages name it."""
        return f"rank {self.rank} of {self.size}"


def place_of(variables: Mapping[str, str]) -> Place:
    """Returns the place that torchrun's environment variables name; that of a single process where there are none.

    Raises:
        ValueError: for a part of the variables without the others, or values that are no place.
    """
    if variables.get("WORLD_SIZE", "1") == "1":
        return Place()
    absent = [name for name in _VARIABLES if name not in variables]
    if absent:
        raise ValueError(
            f"WORLD_SIZE = {variables['WORLD_SIZE']} is set in the environment, but not {', '.join(absent)}: several "
            "processes are started by torchrun, which sets them all; for one process unset WORLD_SIZE"
        )
    values = [int(variables[name]) if variables[name].isascii() and variables[name].isdigit() else -1
              for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]  # fmt: skip
    rank, size, local_rank = values
    if min(values) < 0 or not local_rank <= rank < size:
        named = ", ".join(f"{name} = {variables[name]}" for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        raise ValueError(
            f"{named} in the environment: expected numbers with 0 <= LOCAL_RANK <= RANK < WORLD_SIZE; start the "
            "processes with torchrun, or unset them"
        )
    # torchrun says it, others need not
    local = variables.get("LOCAL_WORLD_SIZE", "")
    local_size = int(local) if local.isascii() and local.isdigit() and local_rank < int(local) <= size else size
    return Place(rank=rank, size=size, local_rank=local_rank, local_size=local_size)


def this_place() -> Place:
    """Returns the place of this process.

    Raises:
        ValueError: as `place_of`.
    """
    return place_of(os.environ)


@dataclass(frozen=True, kw_only=True)
class Share:
    """The rows of a batch that one process computes.

    Attributes:
        first, count: which rows; `count` is 0 for a process without any.
        total: rows of the whole batch.
    """

    first: int
    count: int
    total: int

    @property
    def weight(self) -> float:
        """Part of this process in a mean over the batch."""
        return self.count / self.total

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Returns the share of [M] values; without a row the batch's first one, to be counted with weight 0."""
        return values[self.first : self.first + self.count] if self.count else values[:1]


class World:
    """All processes of one training; this class is the world of a single one.

    Attributes:
        place: of this process.
        can_capture: whether what the processes exchange inside a step can be part of a CUDA graph.
        timeout_s: how long a process waits for another one.
    """

    place = Place()
    can_capture = True
    timeout_s: float = TIMEOUT_S

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.place.size

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.place.rank == 0

    def device(self, name: Device) -> torch.device:
        """Returns the device of this process; of a name with GPUs the one of its number on the machine.

        Raises:
            ValueError: for a device that is not there.
        """
        return choose_device(name)

    def share(self, count: int) -> Share:
        """Returns which of `count` rows are this process's: as equal parts as there can be, in the order of ranks."""
        return self.shares(count)[self.place.rank]

    def shares(self, count: int) -> list[Share]:
        """Returns the shares of all processes."""
        begins = [count * rank // self.size for rank in range(self.size + 1)]
        return [Share(first=begin, count=end - begin, total=count) for begin, end in pairwise(begins)]

    def sum_(self, tensor: Tensor) -> None:
        """Replaces a contiguous tensor by its sum over all processes."""

    def merge_(self, tensor: Tensor) -> None:
        """Completes a tensor of which each process has written other rows, the rest being zeros; bit for bit."""

    def broadcast_(self, tensor: Tensor) -> None:
        """Replaces a tensor by that of the first process."""

    def any_of(self, flags: list[bool]) -> list[bool]:
        """Returns for each flag whether it is set in any process."""
        return flags

    def largest(self, number: int) -> int:
        """Returns the largest of the processes' numbers."""
        return number

    def tell(self, text: str) -> str:
        """Returns the text of the first process."""
        return text

    def require_same(self, **values: Any) -> None:
        """Refuses processes that were started with different options or data.

        Args:
            values: name -> what JSON can hold.
        Raises:
            ValueError: in a process that differs from the first one, naming what differs.
        """


ALONE = World()
"""the world of a single process"""
