"""Importance of each component in its mixture (Eqs. 9, 10), the mixture (Eq. 4), and the three ways Table 2 compares.

Paper: Section 3, "Mask importance".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.ops.attentive_pooling import importance, mixture, peak_mixture
from pps_fast.ops.importance_score import importance_score
from pps_fast.proposals.layout import MixtureLayout
from pps_fast.proposals.readings import READINGS, Mixed
from pps_fast.reconstructor.reconstructor import Reconstructor
from pps_fast.types import Components, MaskSet, Proposals, ReconstructorInput


class ImportanceFromReconstructor(nn.Module):
    """Eq. (9): a two-layer MLP on r_cls of each component's mask."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        width = config.encoder.hidden_dim
        self.backend = config.backend
        # from the first to the last component of a mixture; one that stands alone between them is scored for nothing
        self.scored = slice(layout.mixed[0], layout.mixed[-1] + 1) if layout.mixed else slice(0)
        # without mixtures, every importance is 1 and there is nothing to score
        self.inner = nn.Linear(width, width, bias=False) if layout.mixed else None
        self.outer = nn.Linear(width, 1, bias=False) if layout.mixed else None

    def forward(
        self, g_cls: Tensor, masks: MaskSet, reconstructor: Reconstructor, inputs: ReconstructorInput
    ) -> Tensor:
        """Scores of all components; a proposal of one component needs no pass, and its score is 0.

        Args:
            g_cls: [B, D].
            masks: of the E components.
            reconstructor: makes r_cls of each mask.
            inputs: what the masks share in it.
        Returns:
            [B, E] h of Eq. (9).
        """
        if self.inner is None or self.outer is None:
            return torch.zeros_like(masks.log_masks[:, :, 0])
        r_cls = reconstructor.summaries(inputs, masks.part(self.scored))
        weights = self.inner.weight, self.outer.weight
        return importance_score(r_cls, *weights, self.scored.start, masks.log_masks.shape[1], self.backend)


class ImportanceFromGenerator(nn.Module):
    """Table 2, "importance from the generator": a linear head on g_cls."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        self.score = nn.Linear(config.encoder.hidden_dim, layout.num_components)

    def forward(
        self, g_cls: Tensor, masks: MaskSet, reconstructor: Reconstructor, inputs: ReconstructorInput
    ) -> Tensor:
        """Scores of all components: [B, D] -> [B, E]."""
        return self.score(g_cls)


class NoImportance(nn.Module):
    """Table 2, "no importance": all components of a proposal count the same."""

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()

    def forward(
        self, g_cls: Tensor, masks: MaskSet, reconstructor: Reconstructor, inputs: ReconstructorInput
    ) -> Tensor:
        """[B, E] zeros."""
        return torch.zeros_like(masks.log_masks[:, :, 0])


def _weighted(
    components: Components, weights: Tensor, group: Tensor, num_groups: int, backend: str
) -> tuple[Tensor, Tensor]:
    """Eq. (4)."""
    return mixture(components.masks, components.log_masks, weights, group, num_groups, backend=backend)


def _summed(
    components: Components, weights: Tensor, group: Tensor, num_groups: int, backend: str
) -> tuple[Tensor, Tensor]:
    """Table 2, "no importance": the sum of the masks divided by its peak."""
    return peak_mixture(components.masks, group, num_groups, backend=backend)


# source -> (module that scores components, how their masks are mixed); by the names of `config.ImportanceSource`
IMPORTANCE = {
    "reconstructor": (ImportanceFromReconstructor, _weighted),
    "generator": (ImportanceFromGenerator, _weighted),
    "none": (NoImportance, _summed),
}


class ProposalMixture(nn.Module):
    """From components to proposals: importance (Eqs. 9, 10), mixture (Eq. 4) and boundaries."""

    group: Tensor

    def __init__(self, config: PPSConfig, layout: MixtureLayout) -> None:
        super().__init__()
        scorer, self._mix = IMPORTANCE[config.reconstructor.importance]
        self.backend = config.backend
        self.boundary_shrink = config.proposals.boundary_shrink
        self._read = READINGS[config.proposals.boundaries]
        self.num_proposals = layout.num_proposals
        self.scorer = scorer(config, layout)
        self.register_buffer("group", torch.tensor(layout.group), persistent=False)

    def forward(
        self,
        g_cls: Tensor,
        components: Components,
        dropout_key: Tensor | None,
        reconstructor: Reconstructor,
        inputs: ReconstructorInput,
    ) -> Proposals:
        """Mixes components into proposals.

        Args:
            g_cls: [B, D].
            components: the E components.
            dropout_key: [B, E] int32 of the components' passes; None for no dropout.
            reconstructor, inputs: for an importance that is read from the reconstructor.
        """
        group, num_groups, backend = self.group, self.num_proposals, self.backend
        masks = MaskSet(log_masks=components.log_masks, dropout_key=dropout_key)
        score = self.scorer(g_cls, masks, reconstructor, inputs)
        weights = importance(score, group, num_groups, backend=backend)
        proposal_masks, log_masks = self._mix(components, weights, group, num_groups, backend)
        mixed = Mixed(
            components=components, importance=weights, masks=proposal_masks, group=group, shrink=self.boundary_shrink
        )
        start, end = self._read(mixed, backend)
        return Proposals(
            components=components, importance=weights, masks=proposal_masks, log_masks=log_masks, start=start, end=end
        )
