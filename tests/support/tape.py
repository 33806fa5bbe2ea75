"""Stands in for CUDA graphs on a CPU: replays operations on the memory that they had when they were recorded.

As a graph, it keeps addresses and numbers, not the Python that led to them, and the recordings of a pool spoil what
others have computed in it. An operation that reads a value to the host is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from pps_fast.recordings import Recording, Result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _kept(tensor: Tensor) -> Tensor:
    """Returns another view of its memory, as a parameter may get other memory later."""
    # products of matrices are computed in another order where no gradient is wanted
    return tensor.detach().requires_grad_(tensor.requires_grad)


class _Tape(TorchDispatchMode):
    """Notes operations, and the memory that they allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.computed: dict[int, Tensor] = {}
        # of operands, which must not be taken for memory that an operation has allocated at the same address
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._known |= {_memory(x) for x in _tensors((args, kwargs))}
        self.computed |= {_memory(x): x for x in _tensors(out) if _memory(x) not in self._known}
        self.calls.append(tree_map_only(Tensor, _kept, (func, args, kwargs, out)))
        return out

    def replay(self) -> None:
        # inference tensors may be changed in this mode alone; casts are operations of their own
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            for func, args, kwargs, out in self.calls:
                for kept, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                    if _memory(kept) != _memory(new):
                        kept.copy_(new)

    def spoil(self) -> None:
        """Overwrites all that was computed."""
        with torch.inference_mode():
            for tensor in self.computed.values():
                tensor.fill_(float("nan") if tensor.is_floating_point() else 1)


class TapeRecorder:
    """Records programs on a CPU; counts them, and how often they were replayed."""

    def __init__(self, warm_ups: int = 2) -> None:
        self.num_recordings, self.num_replays = 0, 0
        self._warm_ups = warm_ups

    def __call__(self, program: Callable[[], Result], pool: Any) -> Recording[Result]:
        self.num_recordings += 1
        for _ in range(self._warm_ups):
            program()
        tapes: list[_Tape] = [] if pool is None else pool
        with _Tape() as tape:
            result = program()
        tapes.append(tape)

        def replay() -> None:
            self.num_replays += 1
            for each in tapes:
                each.spoil()
            tape.replay()

        return Recording(replay, result, tapes)
