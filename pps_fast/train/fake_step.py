"""Which ops a training step calls, and with what: a step of fake tensors of the real sizes, without data or a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from pps_fast.config import PPSConfig
from pps_fast.model import PPS
from pps_fast.ops.record import Record, record_calls
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.step import TrainStep
from pps_fast.types import Batch, FeatureSizes

_CPU = torch.device("cpu")


def record_step(
    config: PPSConfig, sizes: FeatureSizes, num_columns: int, device: torch.device | str, batch_size: int = 1
) -> list[Record]:
    """Returns the calls of ops in one training step: forward, losses, and clipping with the update.

    The step runs on fake tensors, which have shapes, dtypes, strides and a device but no values, so that it takes a
    second or two and no memory. A call that asks for a kernel which cannot serve it is recorded and computed by the
    equation. The backward pass calls no op and is left out; each parameter that the loss depends on gets a gradient.
    On a CUDA device, for which not every build of torch keeps a graph, each parameter gets one.

    Args:
        sizes: of the data set.
        num_columns: L, word columns of the batch.
        device: whose step it is; a CUDA device need not exist.
        batch_size: B.
    Returns:
        Records in the order of the calls; their tensors are fake.
    """
    device = torch.device(device)
    # on the meta device, so that no memory is taken and no random number drawn
    with torch.device("meta"):
        model = PPS(config, sizes).train()
    with FakeTensorMode():
        make_fake(model, device)
        step = TRAIN_STEPS[config.train.update](model, config)
        step.autocast, step.differentiate = _autocast, _reach_leaves
        if device.type != "cpu":
            model.requires_grad_(False)
            step.differentiate = partial(_reach_all, step.parameters)
        with _WithoutDriver(), record_calls(_roots(model, step), _runnable) as records:
            step(fake_batch(sizes, num_columns, batch_size, device))
    return records


class SavedBytes:
    """Counts what autograd keeps of the step in its `with` block for the backward pass; each storage once.

    Around `record_step` it tells most of the memory that a step takes, before one is done: on a CPU 0.8 to 0.9 of what
    was measured for Charades-STA.
    """

    def __init__(self) -> None:
        # kept, so that no two have the same address
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._add, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Bytes that were kept."""
        return sum(storage.nbytes() for storage in self._storages.values())

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage
        return tensor

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)


# methods that ask for the driver of a tensor's device, also of a fake one
_NEED_A_DRIVER = (Tensor.__getitem__, Tensor.__invert__, Tensor.contiguous)


class _WithoutDriver(TorchFunctionMode):
    """Makes up the results of such methods for fake tensors of a device that torch may not be built for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.copy_ and args[0].device.type != "cpu":
            return args[0]
        if func in _NEED_A_DRIVER and args[0].device.type != "cpu":
            on_cpu = tree_map_only(Tensor, lambda x: _fake(x, _CPU), (args, kwargs or {}))
            return _fake(func(*on_cpu[0], **on_cpu[1]), args[0].device)
        return func(*args, **(kwargs or {}))


def make_fake(module: nn.Module, device: torch.device) -> None:
    """Puts fake tensors on `device` in the place of all parameters and buffers."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(_fake(parameter, device)))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, _fake(buffer, device))


def _fake(x: Tensor, device: torch.device) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)


def fake_batch(sizes: FeatureSizes, num_columns: int, batch_size: int, device: torch.device) -> Batch:
    """Returns a batch of fake tensors."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(batch_size, *shape, dtype=dtype, device=device)

    return Batch(
        frames=empty(sizes.num_segments, sizes.frame_dim),
        num_frames=empty(dtype=torch.int64),
        words=empty(num_columns, sizes.word_dim),
        word_ids=empty(num_columns, dtype=torch.int64),
        num_words=empty(dtype=torch.int64),
        hide_prob=empty(num_columns),
        word_noise=empty(num_columns),
        dropout_key=empty(dtype=torch.int32),
        sample_index=empty(dtype=torch.int64),
        progress=empty(),
        sentence=empty(sizes.sentence_dim) if sizes.sentence_dim else None,
        part=empty(dtype=torch.int64),
        total_words=batch_size * num_columns,
    )


def _roots(model: PPS, step: TrainStep) -> list[tuple[str, object]]:
    """The parts of a step by the names that sites begin with."""
    return [
        ("generator", model.generator),
        ("reconstructor", model.reconstruct),
        ("importance", model.pool.scorer),
        ("proposals", model.pool),
        ("negatives", model.negatives),
        *([("alignment", model.alignment)] if model.alignment is not None else []),
        *(("losses", objective) for objective in step.objectives),
        *(("update", optimizer) for optimizer in step.optimizers),
    ]


def _runnable(record: Record) -> str:
    """Returns the requested backend, or "torch" if the call requires a kernel that cannot serve it."""
    is_refused = record.backend == "triton" and record.op.reasons(**record.inputs)
    return "torch" if is_refused else record.backend


@contextmanager
def _autocast(device_type: str, dtype: torch.dtype, enabled: bool) -> Iterator[None]:
    """As torch.autocast, also for a device that is not there, for which torch.autocast warns and does nothing."""
    before = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    torch.set_autocast_enabled(device_type, enabled)
    torch.set_autocast_dtype(device_type, dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device_type, before[0])
        torch.set_autocast_dtype(device_type, before[1])


def _reach_leaves(total: Tensor, inputs: Sequence[Tensor] | None) -> None:
    """Gives fake gradients to the leaves that torch.autograd.backward would reach, of `inputs` if these are listed."""
    chosen = None if inputs is None else {id(x) for x in inputs}
    for leaf in _leaves(total):
        if chosen is None or id(leaf) in chosen:
            leaf.grad = torch.empty_like(leaf)


def _reach_all(parameters: Sequence[Tensor], total: Tensor, inputs: Sequence[Tensor] | None) -> None:
    """Gives a gradient to all inputs, by default to all parameters."""
    for leaf in parameters if inputs is None else inputs:
        leaf.grad = torch.empty_like(leaf)


def _leaves(total: Tensor) -> Iterator[Tensor]:
    """The tensors that `total` was computed from and that want a gradient."""
    visited, waiting = set(), [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        # only nodes that accumulate the gradient of a leaf have this
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        waiting += [parent for parent, _ in node.next_functions]
