"""The losses and their weighted sum: L_total = L_rec + a_1 L_ivc + a_2 L_pull + a_3 L_push^intra + a_4 L_push^inter.

Besides, not in the paper: minus the mean reward of the proposals against an alignment's curve.

Paper: Section 3, "Losses for reconstruction", "Losses for pull-push learning scheme" (Eqs. 5-7) and "Training".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pps_fast import equations
from pps_fast.config import LossesConfig, PPSConfig
from pps_fast.ops.contrastive_loss import contrastive_loss
from pps_fast.ops.mixture_exponent import mixture_exponent
from pps_fast.ops.pull_push import pull_all, pull_distant, pull_middle, push
from pps_fast.proposals.layout import layout_of
from pps_fast.types import LossReport, ModelOutput

PULL_STRATEGIES = {"distant": pull_distant, "middle": pull_middle, "all": pull_all}


def _compared(output: ModelOutput) -> tuple[Tensor, Tensor, Tensor]:
    """Returns C of the best positives [B, n], the whole video [B] and the easy negatives of the best [B, n, J]."""
    if output.best_nll is None or output.whole_video_nll is None or output.negative_nll is None:
        raise ValueError("the objective needs the negatives: run the model with with_negatives=True")
    return output.best_nll, output.whole_video_nll, output.negative_nll


def reconstruction_per_sample(output: ModelOutput) -> Tensor:
    """C(P^(k*)) + C(P_hn) of each sample, [B].

    Raises:
        ValueError: for an output without negatives.
    """
    best, whole_video, _ = _compared(output)
    return equations.reconstruction_loss(best, whole_video)


def contrastive(output: ModelOutput, options: LossesConfig, backend: str = "auto") -> Tensor:
    """L_ivc: the best positive must beat the whole video and each of its own easy negatives, by a margin. Scalar.

    Raises:
        ValueError: for an output without negatives.
    """
    margins = options.whole_video_margin, options.negative_margin
    return contrastive_loss(*_compared(output), *margins, backend=backend)


def _reconstruction(objective: Objective, output: ModelOutput) -> Tensor:
    """L_rec, the mean over the batch."""
    return reconstruction_per_sample(output).mean()


def _contrastive(objective: Objective, output: ModelOutput) -> Tensor:
    """L_ivc."""
    return contrastive(output, objective.options, objective.backend)


def _pull(objective: Objective, output: ModelOutput) -> Tensor:
    """Eq. (5)."""
    strategy = PULL_STRATEGIES[objective.options.pull_strategy]
    center = output.proposals.components.center
    return strategy(center, objective.group, objective.num_proposals, backend=objective.backend)


def _push_intra(objective: Objective, output: ModelOutput) -> Tensor:
    """Eq. (6): components of one proposal keep apart."""
    options, components = objective.options, output.proposals.components
    exponents = None if components.exponents is None else components.exponents[:, objective.pushed]
    return push(
        components.masks[:, objective.pushed],
        objective.group[objective.pushed],
        options.push_intra_target,
        options.push_normalize,
        exponents,
        backend=objective.backend,
    )


def _push_inter(objective: Objective, output: ModelOutput) -> Tensor:
    """Eq. (7): proposals keep apart."""
    options, proposals = objective.options, output.proposals
    exponents = None
    if options.push_normalize and proposals.components.exponents is not None:
        # without importance a proposal is a multiple of its masks' sum, which rows divided by their sums do not show
        exponents = mixture_exponent(
            proposals.components.exponents,
            proposals.importance,
            objective.group,
            objective.num_proposals,
            backend=objective.backend,
        )
    return push(
        proposals.masks,
        objective.one_group,
        options.push_inter_target,
        options.push_normalize,
        exponents,
        backend=objective.backend,
    )


def alignment_per_sample(output: ModelOutput) -> Tensor:
    """Minus the mean reward of each sample's K proposals, [B].

    Raises:
        ValueError: for an output without rewards.
    """
    if output.reward is None:
        raise ValueError("the objective needs the rewards of proposals: build the model with losses.alignment > 0")
    return -output.reward.mean(1)


def _alignment(objective: Objective, output: ModelOutput) -> Tensor:
    """Minus the reward of the proposals, the mean over the batch."""
    return alignment_per_sample(output).mean()


LOSS_TERMS = {
    "reconstruction": _reconstruction,
    "contrastive": _contrastive,
    "pull": _pull,
    "push_intra": _push_intra,
    "push_inter": _push_inter,
    "alignment": _alignment,
}


class Objective(nn.Module):
    """The weighted sum of the terms whose weight is not 0; the others are not computed.

    Args:
        config: the run; its losses, layout and backend are read.
        terms: names of the terms that take part; all of them by default.
    """

    factors: Tensor
    group: Tensor
    pushed: Tensor | slice
    one_group: Tensor

    def __init__(self, config: PPSConfig, terms: Sequence[str] = tuple(LOSS_TERMS)) -> None:
        super().__init__()
        self.options = config.losses
        self.backend = config.backend
        self.sample_total = reconstruction_per_sample if config.reconstructs else alignment_per_sample
        layout = layout_of(config.proposals)
        self.num_proposals = layout.num_proposals
        self.weights = {name: getattr(config.losses, name) for name in terms if getattr(config.losses, name) != 0}
        # the weights once more, where one product multiplies all terms
        factors = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        self.register_buffer("factors", factors, persistent=False)
        self.register_buffer("group", torch.tensor(layout.group), persistent=False)
        if config.losses.push_single:
            # all components, by a slice, which copies nothing
            self.pushed = slice(None)
        else:
            self.register_buffer("pushed", torch.tensor(tuple(layout.mixed), dtype=torch.int64), persistent=False)
        self.register_buffer("one_group", torch.zeros(layout.num_proposals, dtype=torch.int64), persistent=False)

    def forward(self, output: ModelOutput) -> LossReport:
        """Computes the loss of a batch.

        Returns:
            total (scalar), the unweighted terms by name, and the reconstruction or alignment term per sample [B].
        Raises:
            ValueError: for an output without negatives, or where these are not needed without rewards.
        """
        # first, because it raises before any term is computed
        with torch.no_grad():
            sample_total = self.sample_total(output)
        terms = {name: LOSS_TERMS[name](self, output) for name in self.weights}
        return LossReport(
            total=self._weighted_sum(list(terms.values()), output), terms=terms, sample_total=sample_total
        )

    def _weighted_sum(self, terms: list[Tensor], output: ModelOutput) -> Tensor:
        """The total of the terms, by one product; 0 where there are none."""
        if not terms:
            return output.positive_nll.new_zeros(())
        stacked = torch.stack(terms)
        return torch.dot(stacked, self.factors.to(stacked.dtype))
