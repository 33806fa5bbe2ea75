"""Easy negatives: masks on other parts of the same video. The hard negative is the whole video and needs no code.

Paper: Section 3, "Negative proposal mining". Only 'learned' is the paper's; 'sides_apart' is CPL's, 'complement' CNM's,
and the others are options of the published code.

A strategy has `num_per_proposal` J and makes masks [B, K * J, T], the J of a proposal side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.equations import log_mask, membership
from pps_fast.ops.attentive_pooling import peak_mixture
from pps_fast.ops.gaussian_mask import gaussian_peak_mask
from pps_fast.proposals.heads import ComponentHead
from pps_fast.proposals.layout import layout_of, uniform
from pps_fast.proposals.shapes import MASK_SHAPES


@dataclass(frozen=True, kw_only=True)
class NegativeInput:
    """Inputs of a strategy for easy negatives.

    Attributes:
        g_cls: [B, D].
        center, width: [B, E] of the positives' components.
        num_positions: T.
        progress: [B] share of the training's epochs that has begun; 0 outside training.
    """

    g_cls: Tensor
    center: Tensor
    width: Tensor
    num_positions: int
    progress: Tensor


class LearnedNegatives(nn.Module):
    """E_en components per negative by Eqs. (1)-(3), each with a center and a width, summed and divided by the peak."""

    num_per_proposal = 1
    is_inverse = False
    group: Tensor

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        options = config.proposals
        layout = uniform(options.num_proposals, options.negatives.num_components)
        self.options = options
        self.backend = config.backend
        sources = ("per_component", "per_component")
        self.head = ComponentHead(config.encoder.hidden_dim, layout, *sources, backend=config.backend)
        self.register_buffer("group", torch.tensor(layout.group), persistent=False)

    def component_masks(self, inputs: NegativeInput) -> Tensor:
        """Eqs. (1)-(3): masks [B, M, T]."""
        center, width = self.head(inputs.g_cls)
        options = self.options
        shape = MASK_SHAPES[options.negatives.mask_shape]
        constants = (options.negatives.sigma, inputs.num_positions, options.width_floor, self.is_inverse)
        masks, _ = shape(center, width, *constants, backend=self.backend)
        return masks

    def forward(self, inputs: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K, T] in [0, 1] and their logs."""
        return peak_mixture(self.component_masks(inputs), self.group, self.options.num_proposals, backend=self.backend)


class LearnedInverseNegatives(LearnedNegatives):
    """The inverse masks of such components: 1 - mask, summed and divided by the peak."""

    is_inverse = True


class HullNegatives(nn.Module):
    """Base of negatives without parameters, which follow from the hull (outer interval) of each positive proposal."""

    num_per_proposal = 1
    member: Tensor

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        self.options = config.proposals
        self.backend = config.backend
        layout = layout_of(config.proposals)
        member = membership(torch.tensor(layout.group), layout.num_proposals)
        self.register_buffer("member", member, persistent=False)

    def hull(self, inputs: NegativeInput) -> tuple[Tensor, Tensor]:
        """Start and end of the smallest interval with all components of a proposal, [B, K] in [0, 1]."""
        left = (inputs.center - inputs.width / 2).unsqueeze(1).masked_fill(~self.member, float("inf"))
        right = (inputs.center + inputs.width / 2).unsqueeze(1).masked_fill(~self.member, float("-inf"))
        return left.amin(-1).clamp(min=0), right.amax(-1).clamp(max=1)

    def bump(self, center: Tensor, width: Tensor, num_positions: int, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Peak-one Gaussians, or 1 minus them, and their logs: [B, n] -> [B, n, T]."""
        constants = (self.options.negatives.sigma, num_positions, self.options.width_floor, inverse)
        return gaussian_peak_mask(center, width, *constants, backend=self.backend)


class InverseNegatives(HullNegatives):
    """1 - the peak-one Gaussian over the hull of the positive proposal."""

    def forward(self, inputs: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K, T] in [0, 1] and their logs."""
        start, end = self.hull(inputs)
        return self.bump((start + end) / 2, end - start, inputs.num_positions, inverse=True)


class SideNegatives(HullNegatives):
    """Two bumps, summed: one in the middle of what lies before the hull, one in the middle of what lies after it."""

    is_saturated = False

    def forward(self, inputs: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K, T] in [0, 2] and their logs."""
        start, end = self.hull(inputs)
        before, after = start / 2, (1 - end) / 2
        left, _ = self.bump(before, before, inputs.num_positions)
        right, _ = self.bump(1 - after, after, inputs.num_positions)
        if self.is_saturated:
            steps = torch.arange(inputs.num_positions, device=left.device, dtype=left.dtype)
            position = steps / (inputs.num_positions - 1)
            left = left.masked_fill(position <= before.unsqueeze(-1), 1)
            right = right.masked_fill(position >= 1 - after.unsqueeze(-1), 1)
        return left + right, log_mask(left + right)


class SaturatedSideNegatives(SideNegatives):
    """Side bumps that stay at 1 from their centers to the video's ends."""

    is_saturated = True


class ApartSideNegatives(HullNegatives):
    """CPL's: two negatives for each proposal, bumps before and after its hull, that move inward with the epochs.

    With pace = progress^curriculum, center and width of the left one are both pace times half of what lies before the
    hull; the right one mirrors that. A curriculum of 0 has pace 1, also at progress 0.
    """

    num_per_proposal = 2

    def forward(self, inputs: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K * 2, T] in [0, 1], left before right, and their logs."""
        start, end = self.hull(inputs)
        pace = inputs.progress.to(start.dtype).pow(self.options.negatives.curriculum).unsqueeze(1)
        before, after = pace * start / 2, pace * (1 - end) / 2
        center, width = torch.stack((before, 1 - after), -1), torch.stack((before, after), -1)
        return self.bump(center.flatten(1), width.flatten(1), inputs.num_positions)


class ComplementNegatives(nn.Module):
    """CNM's: 1 - the mask of the proposal, which has one component (Eq. 3)."""

    num_per_proposal = 1

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        self.options = config.proposals
        self.backend = config.backend

    def forward(self, inputs: NegativeInput) -> tuple[Tensor, Tensor]:
        """Returns masks [B, K, T] in [0, 1] and their logs."""
        options = self.options
        # computed as an inverse mask, because subtracting from 1 would lose the digits of a small result
        constants = (options.sigma, inputs.num_positions, options.width_floor, True)
        return MASK_SHAPES[options.mask_shape](inputs.center, inputs.width, *constants, backend=self.backend)


# by the names of `config.NegativeKind`
NEGATIVES: dict[str, type[LearnedNegatives | HullNegatives | ComplementNegatives]] = {
    "learned": LearnedNegatives,
    "learned_inverse": LearnedInverseNegatives,
    "inverse": InverseNegatives,
    "sides": SideNegatives,
    "sides_saturated": SaturatedSideNegatives,
    "sides_apart": ApartSideNegatives,
    "complement": ComplementNegatives,
}
