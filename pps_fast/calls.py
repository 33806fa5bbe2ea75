"""The ops that a training step calls, with inputs of the shapes, dtypes and strides it gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pps_fast.config import PPSConfig
from pps_fast.encoder.transformer import absorbs
from pps_fast.losses import PULL_STRATEGIES
from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.ops.boundaries import boundaries
from pps_fast.ops.clip_adam import AdamConstants, clip_adam
from pps_fast.ops.dispatch import Op
from pps_fast.ops.gaussian_mask import gaussian_peak_mask
from pps_fast.ops.masked_attention import masked_attention
from pps_fast.ops.pull_push import push
from pps_fast.ops.reconstruction_nll import reconstruction_nll
from pps_fast.ops.residual_norm import residual_norm
from pps_fast.ops.shared_attention import shared_attention
from pps_fast.proposals.layout import MixtureLayout, layout_of, uniform
from pps_fast.proposals.negatives import NEGATIVES
from pps_fast.proposals.shapes import MASK_SHAPES
from pps_fast.types import FeatureSizes


@dataclass(frozen=True)
class Call:
    """One call of an op in a training step: where it stands and what it is given."""

    op: Op
    place: str
    inputs: dict[str, Any]


class _Inputs:
    """Makes uninitialised inputs of a batch on a device, as a training step under this config has them."""

    def __init__(
        self, config: PPSConfig, sizes: FeatureSizes, num_columns: int, device: torch.device, batch_size: int
    ) -> None:
        self.config, self.device, self.batch_size = config, device, batch_size
        self.vocab_size, self.num_columns = sizes.vocab_size, num_columns
        self.layout, self.num_positions = layout_of(config.proposals), sizes.num_segments // config.reconstructor.stride
        # rows of the generator's frames and of the reconstructor's words
        self.num_frames = sizes.num_segments + (config.encoder.frame_summary == "cls")
        self.num_slots = num_columns + 2 * (config.reconstructor.word_tokens == "projected")
        self.num_negatives = NEGATIVES[config.proposals.negatives.kind].num_per_proposal
        # autocast gives the results of linear layers this type; masks and losses stay fp32
        self.dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """[B, ...]."""
        return torch.empty(self.batch_size, *shape, dtype=dtype, device=self.device)

    def group(self, values: Sequence[int]) -> torch.Tensor:
        """The group of each entry."""
        return torch.tensor(tuple(values), dtype=torch.int64, device=self.device)

    def groups_of(self, layout: MixtureLayout) -> dict[str, Any]:
        """The proposal of each component, and how many there are."""
        return {"group": self.group(layout.group), "num_groups": layout.num_proposals}

    def mask_calls(self) -> Iterator[Call]:
        """Component masks and proposals."""
        options, layout = self.config.proposals, self.layout
        group, component = self.groups_of(layout), self.empty(layout.num_components)
        masks = self.empty(layout.num_components, self.num_positions)
        yield self._mask_call(MASK_SHAPES[options.mask_shape], "components", layout.num_components, options.sigma)
        source = self.config.reconstructor.importance
        score_type = self.dtype if source == "generator" else torch.float32
        yield Call(importance, "components", {"score": self.empty(layout.num_components, dtype=score_type), **group})
        if source == "none":
            yield Call(peak_mixture, "proposals", {"masks": masks, **group})
        else:
            yield Call(mixture, "proposals", {"masks": masks, "log_masks": masks, "importance": component, **group})
        bounds = {"center": component, "width": component, "importance": component, "shrink": options.boundary_shrink}
        yield Call(boundaries, "proposals", bounds | group)

    def negative_calls(self) -> Iterator[Call]:
        """Easy negatives."""
        options, negatives = self.config.proposals, self.config.proposals.negatives
        shape = MASK_SHAPES[negatives.mask_shape]
        if not negatives.kind.startswith("learned"):
            own = (MASK_SHAPES[options.mask_shape], options.sigma)
            shape, sigma = own if negatives.kind == "complement" else (gaussian_peak_mask, negatives.sigma)
            yield self._mask_call(shape, "negatives", options.num_proposals * self.num_negatives, sigma)
            return
        layout = uniform(options.num_proposals, negatives.num_components)
        yield self._mask_call(shape, "negatives", layout.num_components, negatives.sigma)
        masks = {"masks": self.empty(layout.num_components, self.num_positions)}
        yield Call(peak_mixture, "negatives", masks | self.groups_of(layout))

    def _mask_call(self, shape: Op, place: str, number: int, sigma: float) -> Call:
        inputs = {**dict.fromkeys(("center", "width"), self.empty(number)), "num_positions": self.num_positions}
        return Call(shape, place, {**inputs, "sigma": sigma, "width_floor": self.config.proposals.width_floor})

    def passes(self) -> dict[str, int]:
        """The reconstructor's passes and how many masks of a sample each has (see `reconstructor.plans`)."""
        options, num_proposals = self.config.reconstructor, self.layout.num_proposals
        found = {}
        if options.importance == "reconstructor" and self.layout.mixed:
            found["importance"] = len(self.layout.mixed)
        num_best, num_each = self.config.losses.num_best, 1 + self.num_negatives
        if options.plan == "plain" or num_best == num_proposals:
            return found | {"proposals": num_proposals * num_each + 1}
        return found | {"positives": num_proposals, "best": num_best * num_each + 1}

    def attention_calls(self) -> Iterator[Call]:
        """Generator, then the reconstructor's passes."""
        frames, words = self.num_frames, self.num_columns + 1
        yield self._attention("generator words", 1, words, words)
        if self.config.generator.num_layers > 1:
            yield self._attention("generator frames", 1, frames, frames)
            yield self._attention("generator frames to words", 1, frames, words, causal=False)
        # the last layer computes one row
        yield self._attention("generator g_cls to frames", 1, 1, frames, causal=False)
        yield self._attention("generator g_cls to words", 1, 1, words, causal=False)
        calls = self._plain_pass if self.config.reconstructor.plan == "plain" else self._shared_pass
        for name, number in self.passes().items():
            yield from calls(name, number)

    def _plain_pass(self, name: str, number: int) -> Iterator[Call]:
        slots, positions = self.num_slots, self.num_positions
        yield self._attention(f"{name} frames", number, positions, positions, has_mask=True)
        yield self._attention(f"{name} words", number, slots, slots)
        yield self._attention(f"{name} words to frames", number, slots, positions, causal=False, has_mask=True)

    def _shared_pass(self, name: str, number: int) -> Iterator[Call]:
        options, slots, positions = self.config.reconstructor, self.num_slots, self.num_positions
        has_row = name == "importance" and self._has_last_row()
        yield self._shared_attention(f"{name} first frames", number)
        if options.num_layers > 1:
            yield self._attention(f"{name} frames", number, positions, positions, has_mask=True)
        yield self._attention(f"{name} first words", 1, slots, slots)
        if (options.num_word_layers or options.num_layers) - has_row > 1:
            yield self._attention(f"{name} words", number, slots, slots)
        yield self._attention(f"{name} words to frames", number, slots, positions, causal=False, has_mask=True)
        if has_row:
            yield self._attention(f"{name} r_cls to words", number, 1, slots, causal=False)
            yield self._attention(f"{name} r_cls to frames", number, 1, positions, causal=False, has_mask=True)

    def _has_last_row(self) -> bool:
        """Whether the last layer of words computes one row for the importance."""
        options = self.config.reconstructor
        return options.plan == "shared" and (options.num_word_layers or options.num_layers) > 1

    def _shared_attention(self, place: str, number: int) -> Call:
        """One sequence per sample under `number` masks."""
        inputs = self._attention(place, 1, self.num_positions, self.num_positions).inputs
        return Call(shared_attention, place, {**inputs, "key_bias": self.empty(number, self.num_positions)})

    def norm_calls(self) -> Iterator[Call]:
        """Ends of sub-layers, in the generator and then in the reconstructor's passes."""
        yield self._norm("generator words", 1, self.num_columns + 1)
        if self.config.generator.num_layers > 1:
            yield self._norm("generator frames", 1, self.num_frames)
        yield self._norm("generator summary", 1, 1, has_first_row=True)
        for name, number in self.passes().items():
            yield self._norm(f"{name} frames", number, self.num_positions)
            yield self._norm(f"{name} words", number, self.num_slots)
            if name == "importance" and self._has_last_row():
                yield self._norm("importance q_cls", number, 1, has_first_row=True)

    def _norm(self, place: str, number: int, rows: int, has_first_row: bool = False) -> Call:
        """`number` sequences per sample."""
        width = self.config.encoder.hidden_dim
        row = self.empty(number, rows, width, dtype=self.dtype).flatten(0, 1)
        inputs = {"x": row, "branch": row, **dict.fromkeys(("weight", "bias"), torch.empty(width, device=self.device))}
        key = self.empty(number, dtype=torch.int32).flatten()
        first_row = self.empty(number, dtype=torch.int64).flatten() if has_first_row else None
        dropping = {"key": key, "site": 0, "rate": self.config.encoder.dropout, "first_row": first_row}
        return Call(residual_norm, place, inputs | dropping)

    def _attention(
        self, place: str, number: int, queries: int, keys: int, causal: bool = True, has_mask: bool = False
    ) -> Call:
        """`number` sequences per sample."""
        heads, width = self.config.encoder.num_heads, self.config.encoder.hidden_dim
        # what is not causal attends to a memory
        if not causal and absorbs(self.config, queries, keys, self.device.type):
            queries, heads = queries * heads, 1

        def made(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return self.empty(number, *shape, dtype=dtype).flatten(0, 1)

        inputs = {
            "query": made(queries, heads, width // heads, dtype=self.dtype).transpose(1, 2),
            "key": made(keys, heads, width // heads, dtype=self.dtype).transpose(1, 2),
            "value": made(keys, heads, width // heads, dtype=self.dtype).transpose(1, 2),
            "key_bias": made(keys, dtype=torch.float32) if has_mask else None,
            "key_valid": made(keys, dtype=torch.bool),
            "causal": causal,
        }
        return Call(masked_attention, place, inputs)

    def loss_calls(self) -> Iterator[Call]:
        """Reconstruction loss, pulling, pushing."""
        options, layout, config = self.config.losses, self.layout, self.config
        columns = self.num_columns + (config.reconstructor.target_length == "end_of_sentence")
        inputs = {
            "targets": self.empty(columns, dtype=torch.int64),
            "is_target": self.empty(columns, dtype=torch.bool),
            "smoothing": config.reconstructor.label_smoothing,
        }
        for name, number in self.passes().items():
            if name != "importance":
                logits = self.empty(number, columns, self.vocab_size, dtype=self.dtype)
                yield Call(reconstruction_nll, name, {"logits": logits, **inputs})
        if options.pull != 0:
            center = {"center": self.empty(layout.num_components)}
            yield Call(PULL_STRATEGIES[options.pull_strategy], "loss", center | self.groups_of(layout))
        pushed = range(layout.num_components) if options.push_single else layout.mixed
        if options.push_intra != 0:
            yield self._push_call("intra loss", [layout.group[e] for e in pushed], options.push_intra_target)
        if options.push_inter != 0:
            yield self._push_call("inter loss", [0] * layout.num_proposals, options.push_inter_target)

    def _push_call(self, place: str, group: list[int], target: float) -> Call:
        inputs = {"masks": self.empty(len(group), self.num_positions), "group": self.group(group), "target": target}
        return Call(push, place, {**inputs, "normalize": self.config.losses.push_normalize})


def calls_of(
    config: PPSConfig, sizes: FeatureSizes, num_columns: int, device: torch.device | str, batch_size: int = 1
) -> list[Call]:
    """Returns the calls of ops that a training step under `config` makes, with uninitialised inputs.

    Args:
        sizes: of the data set.
        num_columns: L, word columns of a batch.
    """
    made = _Inputs(config, sizes, num_columns, torch.device(device), batch_size)
    parts = (made.mask_calls, made.negative_calls, made.attention_calls, made.norm_calls, made.loss_calls)
    return [call for part in parts for call in part()]


def update_call(device: torch.device | str) -> Call:
    """Returns the call that ends a step, on buffers of one value: their sizes and the constants decide nothing."""
    buffers = dict.fromkeys(("parameters", "gradients", "first", "second"), [torch.empty(1, device=device)])
    wide = torch.zeros((), dtype=torch.float64, device=device)
    state = {"rate": wide, "update": wide, "is_sound": wide.bool()}
    return Call(clip_adam, "update", {**buffers, **state, "constants": AdamConstants(1, 0.9, 0.999, 1e-8, 0)})
