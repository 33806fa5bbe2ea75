"""Heads that turn g_cls into centers and widths of components (Eqs. 1, 2), and whose value each component takes.

Paper: Section 3, "Modeling of GMP for positive proposal"; Table 2, "Gaussian generation".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast import equations
from pps_fast.proposals.layout import MixtureLayout


def _of_own(layout: MixtureLayout) -> list[int]:
    """Every component reads its own value."""
    return list(range(layout.num_components))


def _of_proposal(layout: MixtureLayout) -> list[int]:
    """All components of a proposal read the proposal's value."""
    return list(layout.group)


def _of_first(layout: MixtureLayout) -> list[int]:
    """All components of a proposal read the value of its first component."""
    return [layout.offsets[k] for k in layout.group]


def _own_sample(value: Tensor, index: Tensor, count: Tensor) -> Tensor:
    """Component e of sample b reads value[b, index[e]]."""
    return value[:, index]


def _across_batch(value: Tensor, index: Tensor, count: Tensor) -> Tensor:
    """The published code's mix-up: in a proposal of n components, sample b reads component b mod n of sample b // n.

    A result depends on the other samples of the batch.
    """
    sample = torch.arange(value.shape[0], device=value.device).unsqueeze(1)
    return value[sample // count, index + sample % count]


# source -> (which value of the head each component reads, whether of its own sample)
CENTERS = {
    "per_component": (_of_own, _own_sample),
    "per_proposal": (_of_proposal, _own_sample),
}
WIDTHS = {
    "per_proposal": (_of_proposal, _own_sample),
    "per_component": (_of_own, _own_sample),
    "first": (_of_first, _own_sample),
    "across_batch": (_of_first, _across_batch),
}
# sources whose head makes one value per proposal; the others make one per component
_PROPOSAL_SIZED = ("per_proposal",)


def _num_values(layout: MixtureLayout, source: str) -> int:
    return layout.num_proposals if source in _PROPOSAL_SIZED else layout.num_components


class ComponentHead(nn.Module):
    """Centers and widths of all components of a layout; widths go up to `max_width`."""

    def __init__(
        self, hidden_dim: int, layout: MixtureLayout, center_source: str, width_source: str, max_width: float = 1.0
    ) -> None:
        super().__init__()
        self.max_width = max_width
        self.center = nn.Linear(hidden_dim, _num_values(layout, center_source))
        self.width = nn.Linear(hidden_dim, _num_values(layout, width_source))
        center_index, self._read_center = CENTERS[center_source]
        width_index, self._read_width = WIDTHS[width_source]
        counts = [layout.components_per_proposal[k] for k in layout.group]
        # buffers, so that no index is copied to the device inside a step
        self.register_buffer("center_index", torch.tensor(center_index(layout)), persistent=False)
        self.register_buffer("width_index", torch.tensor(width_index(layout)), persistent=False)
        self.register_buffer("count", torch.tensor(counts), persistent=False)

    def forward(self, g_cls: Tensor) -> tuple[Tensor, Tensor]:
        """Eqs. (1) and (2).

        Args:
            g_cls: [B, D].
        Returns:
            center, width: [B, E] in (0, 1), width in (0, max_width).
        """
        center = equations.centers(g_cls, self.center.weight, self.center.bias)
        width = self.max_width * equations.widths(g_cls, self.width.weight, self.width.bias)
        return (
            self._read_center(center, self.center_index, self.count),
            self._read_width(width, self.width_index, self.count),
        )
