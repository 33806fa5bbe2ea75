"""Easy negatives: confusing places inside the same video. The hard negative is the whole video and needs no code.

Paper: Section 3, "Negative proposal mining". Only 'learned' is the paper's;
the others are options of the published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.equations import log_mask, membership
from pps_fast.generator.heads import ComponentHead
from pps_fast.layout import layout_of, uniform
from pps_fast.ops.attentive_pooling import peak_mixture
from pps_fast.ops.gaussian_mask import gaussian_peak_mask
from pps_fast.proposals.shapes import MASK_SHAPES


@dataclass(frozen=True, kw_only=True)
class NegativeInput:
    """What an easy negative may be made from.

    Attributes:
        g_cls: [B, D].
        center, width: [B, E] of the positives' components.
        num_positions: T.
    """

    g_cls: Tensor
    center: Tensor
    width: Tensor
    num_positions: int


class LearnedNegatives(nn.Module):
    """E_en components per negative by Eqs. (1)-(3), each with its own width, summed and divided by the peak."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        options = config.proposals
        layout = uniform(options.num_proposals, options.negatives.num_components)
        self.options = options
        self.backend = config.backend
        self.head = ComponentHead(config.encoder.hidden_dim, layout, "per_component", "per_component")
        self.register_buffer("group", torch.tensor(layout.group), persistent=False)

    is_inverse = False

    def component_masks(self, given: NegativeInput) -> Tensor:
        """Returns [B, M, T]."""
        center, width = self.head(given.g_cls)
        options = self.options
        shape = MASK_SHAPES[options.negatives.mask_shape]
        constants = (options.negatives.sigma, given.num_positions, options.width_floor, self.is_inverse)
        masks, _ = shape(center, width, *constants, backend=self.backend)
        return masks

    def forward(self, given: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K, T] in [0, 1] and their logs."""
        return peak_mixture(self.component_masks(given), self.group, self.options.num_proposals, backend=self.backend)


class LearnedInverseNegatives(LearnedNegatives):
    """The same components turned inside out: 1 - mask, summed and divided by the peak."""

    is_inverse = True


class HullNegatives(nn.Module):
    """Base of the negatives without parameters, drawn around the hull of each positive proposal."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        self.options = config.proposals
        self.backend = config.backend
        layout = layout_of(config.proposals)
        member = membership(torch.tensor(layout.group), layout.num_proposals)
        self.register_buffer("member", member, persistent=False)

    def hull(self, given: NegativeInput) -> tuple[Tensor, Tensor]:
        """Start and end of the smallest interval with all components of a proposal, [B, K] in [0, 1]."""
        left = (given.center - given.width / 2).unsqueeze(1).masked_fill(~self.member, float("inf"))
        right = (given.center + given.width / 2).unsqueeze(1).masked_fill(~self.member, float("-inf"))
        return left.amin(-1).clamp(min=0), right.amax(-1).clamp(max=1)

    def bump(self, center: Tensor, width: Tensor, num_positions: int, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Peak-one Gaussians, or 1 minus them, and their logs: [B, K] -> [B, K, T]."""
        constants = (self.options.negatives.sigma, num_positions, self.options.width_floor, inverse)
        return gaussian_peak_mask(center, width, *constants, backend=self.backend)


class InverseNegatives(HullNegatives):
    """1 - the peak-one Gaussian over the hull of the positive proposal."""

    def forward(self, given: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K, T] in [0, 1] and their logs."""
        start, end = self.hull(given)
        return self.bump((start + end) / 2, end - start, given.num_positions, inverse=True)


class SideNegatives(HullNegatives):
    """A bump in the middle of what lies before the hull and one in the middle of what lies after it, summed."""

    is_saturated = False

    def forward(self, given: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K, T] in [0, 2] and their logs."""
        start, end = self.hull(given)
        before, after = start / 2, (1 - end) / 2
        left, _ = self.bump(before, before, given.num_positions)
        right, _ = self.bump(1 - after, after, given.num_positions)
        if self.is_saturated:
            steps = torch.arange(given.num_positions, device=left.device, dtype=left.dtype)
            position = steps / (given.num_positions - 1)
            left = left.masked_fill(position <= before.unsqueeze(-1), 1)
            right = right.masked_fill(position >= 1 - after.unsqueeze(-1), 1)
        return left + right, log_mask(left + right)


class SaturatedSideNegatives(SideNegatives):
    """Side bumps that stay at 1 from their centers to the video's ends."""

    is_saturated = True


NEGATIVES = {
    "learned": LearnedNegatives,
    "learned_inverse": LearnedInverseNegatives,
    "inverse": InverseNegatives,
    "sides": SideNegatives,
    "sides_saturated": SaturatedSideNegatives,
}
