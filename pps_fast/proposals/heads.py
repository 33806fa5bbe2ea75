"""Heads that turn g_cls into centers and widths (Eqs. 1, 2), and which of these values each component takes.

Paper: Section 3, "Modeling of GMP for positive proposal"; Table 2, "Gaussian generation".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.ops.component_heads import component_heads
from pps_fast.proposals.layout import MixtureLayout


def _component_index(layout: MixtureLayout) -> list[int]:
    """One value per component."""
    return list(range(layout.num_components))


def _proposal_index(layout: MixtureLayout) -> list[int]:
    """One value per proposal, shared by its components."""
    return list(layout.group)


def _first_index(layout: MixtureLayout) -> list[int]:
    """One value per component, of which all components of a proposal take that of the first."""
    return [layout.offsets[k] for k in layout.group]


def _across_batch(value: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """The published code's mix-up: in a proposal of n components, sample b reads component b mod n of sample b // n.

    The result of a sample depends on the other samples of its batch.
    """
    sample = torch.arange(value.shape[0], device=value.device).unsqueeze(1)
    return value[sample // count, first + sample % count]


# source -> row of the head that each component reads; by the names of `config.CenterSource` and `config.WidthSource`
CENTERS = {
    "per_component": _component_index,
    "per_proposal": _proposal_index,
}
WIDTHS = {
    "per_proposal": _proposal_index,
    "per_component": _component_index,
    "first": _first_index,
    # mixed up afterwards
    "across_batch": _component_index,
}
# sources whose head makes one value per proposal; the others make one per component
_PROPOSAL_SIZED = ("per_proposal",)


def _num_values(layout: MixtureLayout, source: str) -> int:
    return layout.num_proposals if source in _PROPOSAL_SIZED else layout.num_components


class ComponentHead(nn.Module):
    """Centers and widths of all components of a layout (Eqs. 1, 2).

    Args:
        hidden_dim: D.
        layout: K proposals with E components.
        center_source, width_source: keys of CENTERS and WIDTHS.
        max_width: widths stay below it, as a fraction of the video.
        backend: see `config.PPSConfig`.
    """

    center_index: Tensor
    width_index: Tensor
    first: Tensor
    count: Tensor

    def __init__(
        self,
        hidden_dim: int,
        layout: MixtureLayout,
        center_source: str,
        width_source: str,
        max_width: float = 1.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.max_width, self.backend = max_width, backend
        self.center = nn.Linear(hidden_dim, _num_values(layout, center_source))
        self.width = nn.Linear(hidden_dim, _num_values(layout, width_source))
        counts = [layout.components_per_proposal[k] for k in layout.group]
        self.is_mixed_up = width_source == "across_batch"
        # buffers, so that no index is copied to the device inside a step
        self.register_buffer("center_index", torch.tensor(CENTERS[center_source](layout)), persistent=False)
        self.register_buffer("width_index", torch.tensor(WIDTHS[width_source](layout)), persistent=False)
        self.register_buffer("first", torch.tensor(_first_index(layout)), persistent=False)
        self.register_buffer("count", torch.tensor(counts), persistent=False)

    def forward(self, g_cls: Tensor) -> tuple[Tensor, Tensor]:
        """Eqs. (1) and (2).

        Args:
            g_cls: [B, D].
        Returns:
            center [B, E] in (0, 1) and width [B, E] in (0, max_width).
        """
        indices = self.center_index, self.width_index
        center, width = component_heads(g_cls, self.center, self.width, *indices, self.max_width, self.backend)
        return center, _across_batch(width, self.first, self.count) if self.is_mixed_up else width
