"""The kinds of call that a training step makes of its ops, as templates of inputs for the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from pps_fast.config import PPSConfig
from pps_fast.ops.dispatch import Op
from pps_fast.ops.record import Record
from pps_fast.proposals.layout import layout_of, uniform
from pps_fast.train.fake_step import record_step
from pps_fast.types import FeatureSizes


@dataclass(frozen=True)
class StepCall:
    """One kind of call of an op.

    Attributes:
        op: what is called.
        site: where, with the shape of the first input at batch size 1, as one site may call with several:
            "losses.pull 1x36".
        inputs: by name; tensors are uninitialized, but `group`.
    """

    op: Op
    site: str
    inputs: dict[str, Any]


def step_calls(config: PPSConfig, sizes: FeatureSizes, num_columns: int, batch_size: int = 1) -> list[StepCall]:
    """Returns the kinds of call of a step on a GPU, but for that of the update, in the order of their first call.

    Args:
        sizes: of the data set.
        num_columns: L, word columns of a batch.
    """
    calls: dict[tuple[str, str], StepCall] = {}
    for record in record_step(config, sizes, num_columns, "cuda", batch_size):
        if record.op.name == "clip_adam":
            continue
        first = next(x for x in record.inputs.values() if isinstance(x, Tensor))
        shape = (first.shape[0] // batch_size, *first.shape[1:])
        site = f"{record.site} {'x'.join(map(str, shape))}"
        if (record.op.name, site) not in calls:
            inputs = tree_map_only(Tensor, _uninitialized, record.inputs)
            if "group" in inputs:
                inputs["group"] = torch.tensor(_group(record, config))
            calls[record.op.name, site] = StepCall(record.op, site, inputs)
    return list(calls.values())


def _uninitialized(x: Tensor) -> Tensor:
    """A tensor of the same layout; an expanded one, whose values could not be drawn one by one, as contiguous."""
    if any(stride == 0 and size > 1 for size, stride in zip(x.shape, x.stride(), strict=True)):
        return torch.empty(x.shape, dtype=x.dtype)
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)


def keys_are_words(site: str) -> bool:
    """Whether the attention at a site attends to words: that of words to themselves, or of frames across."""
    return ("word_stack" in site) != ("cross_attention" in site)


def _group(record: Record, config: PPSConfig) -> list[int]:
    """The group of each entry, which a fake tensor does not tell."""
    options, size = config.proposals, record.inputs["group"].numel()
    layout = layout_of(options)
    if record.op.name == "push" and record.site == "losses.push_inter":
        return [0] * size
    if record.site.startswith("negatives"):
        return list(uniform(options.num_proposals, options.negatives.num_components).group)
    return list(layout.group if size == layout.num_components else (layout.group[e] for e in layout.mixed))
