"""Inputs of every op with the shapes a training step has, random values and the precisions it can run in.

The shapes come from `pps_fast.calls.calls_of`, so that they are those of the model whatever becomes of it; the word
columns are those of a batch that holds the data set's longest sentence.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.counts import PRODUCTS
from benchmarks.step import BATCH_SIZE, LENGTH_QUANTILES, MAX_NUM_WORDS, SIZES
from benchmarks.timing import PRECISIONS
from pps_fast import equations
from pps_fast.calls import Call, calls_of
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.store import rounded_columns
from pps_fast.presets import PRESETS
from pps_fast.types import FeatureSizes

Inputs = dict[str, Any]

# preset, sizes, quantiles 5, 50, 95 % of the sentences' lengths and the longest; "tiny" is for trials of this code
DATASETS: dict[str, tuple[str, FeatureSizes, tuple[int, ...]]] = {
    **{name: (name, *SIZES[name]) for name in ("charades", "activitynet")},
    "tiny": ("tiny", FeatureSizes(frame_dim=8, word_dim=6, vocab_size=23, num_segments=16), (2, 3, 5, 6)),
}
# configs under which a step calls the ops that the paper's config does not
_VARIANTS: dict[str, dict[str, Any]] = {
    "gaussian_peak_mask": {"proposals.mask_shape": "gaussian_peak"},
    "laplace_mask": {"proposals.mask_shape": "laplace"},
    "pull_middle": {"losses.pull_strategy": "middle"},
    "pull_all": {"losses.pull_strategy": "all"},
}


def num_columns_of(dataset: str) -> int:
    """Word columns of a batch that holds the longest sentence."""
    return int(rounded_columns(np.array(DATASETS[dataset][2]), MAX_NUM_WORDS)[-1])


@dataclass(frozen=True)
class OpCase:
    """One kind of call of an op in a training step.

    Attributes:
        op: its name.
        place: where in the step.
        dtype: key of PRECISIONS.
    """

    op: str
    place: str
    dataset: str
    dtype: str
    batch_size: int = BATCH_SIZE

    @property
    def name(self) -> str:
        """Of the case among those of its op, also the seed."""
        return f"{self.dataset} {self.place}"

    def inputs(self, device: torch.device | str, draw: int = 0, requires_grad: bool = False) -> Inputs:
        """Returns random inputs on a device, others for every `draw`, with the strides the model has."""
        is_bf16 = PRECISIONS[self.dtype][0] == torch.bfloat16
        template = _templates(self.dataset, is_bf16, self.batch_size)[self.op, self.place]
        drawn = _Draw(self, torch.device(device), draw).all(template)
        return {name: _leaf(value) if requires_grad else value for name, value in drawn.items()}


def wrt_of(inputs: Inputs) -> tuple[str, ...]:
    """Names of the inputs that get a gradient: whatever is floating."""
    return tuple(name for name, x in inputs.items() if isinstance(x, Tensor) and x.is_floating_point())


def _leaf(value: Any) -> Any:
    return value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value


class _Draw:
    """Sensible values for the inputs of ops, by their names."""

    def __init__(self, case: OpCase, device: torch.device, draw: int) -> None:
        self.case, self.device = case, device
        seed = zlib.crc32(f"{case.op} {case.name} {draw}".encode())
        self.generator = torch.Generator(device).manual_seed(seed)
        lengths = DATASETS[case.dataset][2]
        shares = np.random.default_rng(seed).random(case.batch_size)
        found = np.interp(shares, LENGTH_QUANTILES, lengths).round().astype(np.int64).clip(1)
        self.num_words = torch.from_numpy(found).to(device)

    def all(self, template: Inputs) -> Inputs:
        """Values for a whole call."""
        made: Inputs = {}
        for name, like in template.items():
            made[name] = self._one(name, like, template) if isinstance(like, Tensor) else like
        if "log_masks" in made:
            made["log_masks"] = equations.log_mask(made["masks"])
        if "importance" in made:
            made["importance"] = equations.importance(made["importance"], made["group"], made["num_groups"])
        return made

    def _one(self, name: str, like: Tensor, template: Inputs) -> Tensor:
        # the only integers that a call has and a batch has not
        if name == "group":
            return like.to(self.device)
        if like.dtype == torch.bool:
            return self._valid(name, like)
        value = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=self.device)
        if like.dtype == torch.int32:
            return value.random_(-(2**31), 2**31 - 1, generator=self.generator)
        if name == "targets":
            return value.random_(1, template["logits"].shape[-1], generator=self.generator)
        if name == "first_row":
            return value.random_(0, MAX_NUM_WORDS, generator=self.generator)
        bounds = {"center": (0.02, 0.98), "width": (0.1, 0.95), "masks": (0.01, 1.0), "weight": (0.5, 1.5)}
        if name in bounds:
            return value.uniform_(*bounds[name], generator=self.generator)
        if name == "key_bias":
            return value.uniform_(0.05, 1, generator=self.generator).log_()
        return value.normal_(0, 1, generator=self.generator)

    def _valid(self, name: str, like: Tensor) -> Tensor:
        """Words and the slots before and after them are there as far as the sentence goes, frames always."""
        num, length = like.shape
        if name == "key_valid" and not self.case.place.endswith("words"):
            return torch.ones(num, length, dtype=torch.bool, device=self.device)
        extra = length - num_columns_of(self.case.dataset)
        ends = (self.num_words + extra).repeat_interleave(num // self.case.batch_size)
        return torch.arange(length, device=self.device) < ends.unsqueeze(-1)


@lru_cache(maxsize=4)
def _templates(dataset: str, is_bf16: bool, batch_size: int) -> dict[tuple[str, str], Inputs]:
    """Uninitialized inputs by op and place; memory that is never written is never taken."""
    preset, sizes, _ = DATASETS[dataset]
    config = override(PRESETS[preset], {"train.precision": "bf16" if is_bf16 else "fp32"})
    found: dict[tuple[str, str], Inputs] = {}
    for call in _calls(config, sizes, num_columns_of(dataset), batch_size):
        found.setdefault((call.op.name, call.place), call.inputs)
    return found


def _calls(config: PPSConfig, sizes: FeatureSizes, num_columns: int, batch_size: int) -> Iterator[Call]:
    """Calls of the config's step and those of the variants' ops."""
    # a CPU's step projects some queries instead of the memory; the kernels' backend does not
    config = override(config, {"backend": "triton"})
    yield from calls_of(config, sizes, num_columns, "cpu", batch_size)
    for name, changes in _VARIANTS.items():
        others = calls_of(override(config, changes), sizes, num_columns, "cpu", batch_size)
        yield from (call for call in others if call.op.name == name)


def cases_of(
    datasets: Sequence[str] = ("charades", "activitynet"),
    dtypes: Sequence[str] = tuple(PRECISIONS),
    batch_size: int = BATCH_SIZE,
) -> dict[str, list[OpCase]]:
    """Returns the cases of every op by its name.

    "tf32" is for ops that multiply matrices, "bf16" for ops that are given activations: masks and losses stay fp32.
    """
    found: dict[str, list[OpCase]] = {}
    for dataset in datasets:
        for (op, place), inputs in _templates(dataset, True, 1).items():
            is_activation = any(isinstance(x, Tensor) and x.dtype == torch.bfloat16 for x in inputs.values())
            has_dtype = {"fp32": True, "tf32": op in PRODUCTS, "bf16": is_activation}
            for dtype in dtypes:
                if has_dtype[dtype]:
                    found.setdefault(op, []).append(OpCase(op, place, dataset, dtype, batch_size))
    return found


CASES: dict[str, list[OpCase]] = cases_of()
