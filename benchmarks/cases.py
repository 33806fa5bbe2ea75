"""Inputs of every op with the shapes a training step has, random values and the precisions it can run in.

Shapes and strides are those that `benchmarks.step_calls` records from a step of the model; the word columns are those
of a batch that holds the data set's longest sentence. A step is recorded when its cases are first asked for, in a few
seconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.counts import PRODUCTS
from benchmarks.step import BATCH_SIZE, LENGTH_QUANTILES, MAX_NUM_WORDS, SIZES
from benchmarks.step_calls import keys_are_words, step_calls
from benchmarks.timing import PRECISIONS
from pps_fast import equations
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
# ops that other configs call, with the inputs of the one that the paper's config calls first in their place
_ALTERNATIVES = {
    "gaussian_peak_mask": "gaussian_mask",
    "laplace_mask": "gaussian_mask",
    "pull_middle": "pull_distant",
    "pull_all": "pull_distant",
}


def num_columns_of(dataset: str) -> int:
    """Word columns of a batch that holds the longest sentence."""
    return int(rounded_columns(np.array(DATASETS[dataset][2]), MAX_NUM_WORDS)[-1])


@dataclass(frozen=True)
class OpCase:
    """One kind of call of an op in a training step.

    Attributes:
        op: its name.
        site: where in the step, with a shape (see `StepCall`).
        dtype: key of PRECISIONS.
    """

    op: str
    site: str
    dataset: str
    dtype: str
    batch_size: int = BATCH_SIZE

    @property
    def name(self) -> str:
        """Of the case among those of its op, also the seed."""
        return f"{self.dataset} {self.site}"

    def inputs(self, device: torch.device | str, draw: int = 0, requires_grad: bool = False) -> Inputs:
        """Returns random inputs on a device, others for every `draw`, with the strides the model has."""
        is_bf16 = PRECISIONS[self.dtype][0] == torch.bfloat16
        template = _templates(self.dataset, is_bf16, self.batch_size)[self.op, self.site]
        drawn = _Draw(self, torch.device(device), draw).all(template)
        return {name: _leaf(value) if requires_grad else value for name, value in drawn.items()}


def wrt_of(inputs: Inputs) -> tuple[str, ...]:
    """Names of the inputs that get a gradient: whatever is floating and read."""
    # pushing by exponents does not read the masks
    unread = "masks" if inputs.get("exponents") is not None else None
    return tuple(
        name for name, x in inputs.items() if isinstance(x, Tensor) and x.is_floating_point() and name != unread
    )


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
        num_words = np.interp(shares, LENGTH_QUANTILES, lengths).round().astype(np.int64).clip(1)
        self.num_words = torch.from_numpy(num_words).to(device)

    def all(self, template: Inputs) -> Inputs:
        """Values for a whole call."""
        inputs_of_op: Inputs = {}
        for name, like in template.items():
            inputs_of_op[name] = self._one(name, like, template) if isinstance(like, Tensor) else like
        if "log_masks" in inputs_of_op:
            inputs_of_op["log_masks"] = equations.log_mask(inputs_of_op["masks"])
        if "importance" in inputs_of_op:
            inputs_of_op["importance"] = equations.importance(
                inputs_of_op["importance"], inputs_of_op["group"], inputs_of_op["num_groups"]
            )
        return inputs_of_op

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
        if name in ("key_bias", "exponents"):
            return value.uniform_(0.05, 1, generator=self.generator).log_()
        return value.normal_(0, 1, generator=self.generator)

    def _valid(self, name: str, like: Tensor) -> Tensor:
        """Words and the slots before and after them are there as far as the sentence goes, frames always."""
        num, length = like.shape
        if name == "frame_valid" or (name == "key_valid" and not keys_are_words(self.case.site)):
            return torch.ones(num, length, dtype=torch.bool, device=self.device)
        extra = length - num_columns_of(self.case.dataset)
        ends = (self.num_words + extra).repeat_interleave(num // self.case.batch_size)
        return torch.arange(length, device=self.device) < ends.unsqueeze(-1)


@lru_cache(maxsize=8)
def _templates(dataset: str, is_bf16: bool, batch_size: int) -> dict[tuple[str, str], Inputs]:
    """Uninitialized inputs by op and site; memory that is never written is never taken."""
    preset, sizes, _ = DATASETS[dataset]
    # a step with the equations may project some queries instead of the memory; one with the kernels does not
    changes = {"train.precision": "bf16" if is_bf16 else "fp32", "backend": "triton"}
    calls = step_calls(override(PRESETS[preset], changes), sizes, num_columns_of(dataset), batch_size)
    templates = {(call.op.name, call.site): call.inputs for call in calls}
    for name, called in _ALTERNATIVES.items():
        site = next(site for op, site in templates if op == called)
        templates[name, site] = templates[called, site]
    site = next(site for op, site in templates if op == "push" and site.startswith("losses.push_inter"))
    templates["mask_reward", site] = _reward_template(templates["push", site]["masks"])
    return templates


def _reward_template(masks: Tensor) -> Inputs:
    """Rewards are of the proposals' masks [B, K, T], which the paper's step pushes apart."""
    curve = masks.new_empty(masks.shape[0], masks.shape[2])
    return {"masks": masks, "curve": curve, "power": 0.25, "frame_valid": torch.empty_like(curve, dtype=torch.bool)}


def cases_of(
    datasets: Sequence[str] = ("charades", "activitynet"),
    dtypes: Sequence[str] = tuple(PRECISIONS),
    batch_size: int = BATCH_SIZE,
) -> dict[str, list[OpCase]]:
    """Returns the cases of every op by its name.

    "tf32" is for ops that multiply matrices, "bf16" for ops that are given activations: masks and losses stay fp32.
    """
    cases: dict[str, list[OpCase]] = {}
    for dataset in datasets:
        for (op, site), inputs in _templates(dataset, "bf16" in dtypes, batch_size).items():
            is_activation = any(isinstance(x, Tensor) and x.dtype == torch.bfloat16 for x in inputs.values())
            has_dtype = {"fp32": True, "tf32": op in PRODUCTS, "bf16": is_activation}
            for dtype in dtypes:
                if has_dtype[dtype]:
                    cases.setdefault(op, []).append(OpCase(op, site, dataset, dtype, batch_size))
    return cases
