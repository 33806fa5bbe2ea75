"""Importance of each component in its mixture (Eqs. 9, 10), and the three ways Table 2 compares.

Paper: Section 3, "Mask importance".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast import equations
from pps_fast.config import PPSConfig
from pps_fast.layout import MixtureLayout
from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.reconstructor.reconstructor import Reconstructor, ReconstructorInput


class ImportanceFromReconstructor(nn.Module):
    """Eq. (9): a two-layer MLP on r_cls of each component's own mask."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.has_mixed = bool(layout.mixed)
        self.register_buffer("mixed", torch.tensor(layout.mixed, dtype=torch.int64), persistent=False)
        self.inner = nn.Linear(width, width, bias=False)
        self.outer = nn.Linear(width, 1, bias=False)

    def forward(self, g_cls: Tensor, masks: Tensor, reconstructor: Reconstructor, shared: ReconstructorInput) -> Tensor:
        """Scores of all components; one that is alone in its proposal needs no pass and gets 0.

        Args:
            g_cls: [B, D].
            masks: [B, E, T].
        Returns:
            [B, E] h of Eq. (9).
        """
        score = masks.new_zeros(masks.shape[:2])
        if not self.has_mixed:
            return score
        r_cls = reconstructor.summaries(shared, masks[:, self.mixed])
        found = equations.importance_score(r_cls, self.inner.weight, self.outer.weight)
        return score.index_copy(1, self.mixed, found.to(score.dtype))


class ImportanceFromGenerator(nn.Module):
    """Table 2, "importance from the generator": a linear head on g_cls."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        self.score = nn.Linear(config.encoder.hidden_dim, layout.num_components)

    def forward(self, g_cls: Tensor, masks: Tensor, reconstructor: Reconstructor, shared: ReconstructorInput) -> Tensor:
        """[B, D] -> [B, E]."""
        return self.score(g_cls)


class NoImportance(nn.Module):
    """Table 2, "no importance": all components count the same."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()

    def forward(self, g_cls: Tensor, masks: Tensor, reconstructor: Reconstructor, shared: ReconstructorInput) -> Tensor:
        """[B, E, T] -> [B, E] zeros."""
        return masks.new_zeros(masks.shape[:2])


def _weighted(masks: Tensor, weights: Tensor, group: Tensor, num_groups: int, backend: str) -> Tensor:
    return mixture(masks, weights, group, num_groups, backend=backend)


def _summed(masks: Tensor, weights: Tensor, group: Tensor, num_groups: int, backend: str) -> Tensor:
    return peak_mixture(masks, group, num_groups, backend=backend)


# source -> (module that scores components, how masks are mixed)
IMPORTANCE = {
    "reconstructor": (ImportanceFromReconstructor, _weighted),
    "generator": (ImportanceFromGenerator, _weighted),
    "none": (NoImportance, _summed),
}


class AttentivePooling(nn.Module):
    """From component masks to importance weights and proposals (Eqs. 9, 10, 4)."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        scorer, self._mix = IMPORTANCE[config.reconstructor.importance]
        self.backend = config.backend
        self.num_proposals = layout.num_proposals
        self.scorer = scorer(config, layout)
        self.register_buffer("group", torch.tensor(layout.group), persistent=False)

    def forward(
        self, g_cls: Tensor, masks: Tensor, reconstructor: Reconstructor, shared: ReconstructorInput
    ) -> tuple[Tensor, Tensor]:
        """Pools components into proposals.

        Args:
            g_cls: [B, D].
            masks: [B, E, T].
        Returns:
            importance [B, E] and proposal masks [B, K, T].
        """
        score = self.scorer(g_cls, masks, reconstructor, shared)
        weights = importance(score, self.group, self.num_proposals, backend=self.backend)
        return weights, self._mix(masks, weights, self.group, self.num_proposals, self.backend)
