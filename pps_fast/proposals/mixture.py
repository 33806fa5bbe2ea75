"""Importance of each component in its mixture (Eqs. 9, 10), and the three ways Table 2 compares.

Paper: Section 3, "Mask importance".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast import equations
from pps_fast.config import PPSConfig
from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.proposals.layout import MixtureLayout
from pps_fast.reconstructor.plans import ReconstructorInput
from pps_fast.reconstructor.reconstructor import Reconstructor
from pps_fast.types import Components, MaskSet


class ImportanceFromReconstructor(nn.Module):
    """Eq. (9): a two-layer MLP on r_cls of each component's own mask."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.has_mixed = bool(layout.mixed)
        self.register_buffer("mixed", torch.tensor(layout.mixed, dtype=torch.int64), persistent=False)
        # a component that is alone has nothing to be weighed against
        self.inner = nn.Linear(width, width, bias=False) if layout.mixed else None
        self.outer = nn.Linear(width, 1, bias=False) if layout.mixed else None

    def forward(
        self, g_cls: Tensor, masks: MaskSet, reconstructor: Reconstructor, shared: ReconstructorInput
    ) -> Tensor:
        """Scores of all components; one that is alone in its proposal needs no pass and gets 0.

        Args:
            g_cls: [B, D].
            masks: of the E components.
        Returns:
            [B, E] h of Eq. (9).
        """
        score = torch.zeros_like(masks.log_masks[:, :, 0])
        if not self.has_mixed:
            return score
        r_cls = reconstructor.summaries(shared, masks.take(self.mixed.expand(len(g_cls), -1)))
        found = equations.importance_score(r_cls, self.inner.weight, self.outer.weight)
        return score.index_copy(1, self.mixed, found.to(score.dtype))


class ImportanceFromGenerator(nn.Module):
    """Table 2, "importance from the generator": a linear head on g_cls."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        self.score = nn.Linear(config.encoder.hidden_dim, layout.num_components)

    def forward(
        self, g_cls: Tensor, masks: MaskSet, reconstructor: Reconstructor, shared: ReconstructorInput
    ) -> Tensor:
        """[B, D] -> [B, E]."""
        return self.score(g_cls)


class NoImportance(nn.Module):
    """Table 2, "no importance": all components count the same."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()

    def forward(
        self, g_cls: Tensor, masks: MaskSet, reconstructor: Reconstructor, shared: ReconstructorInput
    ) -> Tensor:
        """[B, E] zeros."""
        return torch.zeros_like(masks.log_masks[:, :, 0])


def _weighted(made: Components, weights: Tensor, group: Tensor, num_groups: int, backend: str) -> tuple[Tensor, Tensor]:
    return mixture(made.masks, made.log_masks, weights, group, num_groups, backend=backend)


def _summed(made: Components, weights: Tensor, group: Tensor, num_groups: int, backend: str) -> tuple[Tensor, Tensor]:
    return peak_mixture(made.masks, group, num_groups, backend=backend)


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
        self,
        g_cls: Tensor,
        components: Components,
        dropout_key: Tensor | None,
        reconstructor: Reconstructor,
        shared: ReconstructorInput,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pools components into proposals.

        Args:
            g_cls: [B, D].
            dropout_key: [B, E] int32 of the components' passes; None for no dropout.
        Returns:
            importance [B, E], proposal masks and their logs [B, K, T].
        """
        masks = MaskSet(log_masks=components.log_masks, dropout_key=dropout_key)
        score = self.scorer(g_cls, masks, reconstructor, shared)
        weights = importance(score, self.group, self.num_proposals, backend=self.backend)
        return weights, *self._mix(components, weights, self.group, self.num_proposals, self.backend)
