"""Dropout sites of a model: each has its own number, which selects its random stream (see `randomness.py`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.ops.dropout import dropout
from pps_fast.ops.masked_attention import multiplied_as
from pps_fast.ops.residual_norm import residual_norm
from pps_fast.randomness import SITES, num_dropped_levels


class DropoutSite(nn.Module):
    """A module that drops values. `number_sites` gives every site of a model its number."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        self.rate = config.encoder.dropout
        self.backend = config.backend
        self.site = 0

    @property
    def settings(self) -> list[int]:
        """Number of the site, and how many of 65,536 levels of a decision drop."""
        return [self.site, num_dropped_levels(self.rate)]


class Dropout(DropoutSite):
    """Dropout of the input of a matrix product, in the dtype that it is multiplied as (see `randomness.dropout`)."""

    def forward(self, x: Tensor, dropout_key: Tensor | None, first_row: int = 0) -> Tensor:
        """Drops values of rows.

        Args:
            x: [G, n, D].
            dropout_key: [G] int32 of the sequences; None for no dropout.
            first_row: position of the first of the n rows in its sequence.
        Returns:
            [G, n, D].
        """
        if dropout_key is None:
            return x
        return dropout(x, dropout_key, self.site, self.rate, first_row, multiplied_as(x), self.backend)


class ResidualNorm(DropoutSite):
    """LayerNorm(x + dropout(branch)), the end of every sub-layer."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.ones(config.encoder.hidden_dim))
        self.bias = nn.Parameter(torch.zeros(config.encoder.hidden_dim))

    def forward(self, x: Tensor, branch: Tensor, dropout_key: Tensor | None, first_row: Tensor | None = None) -> Tensor:
        """Adds, drops and normalizes.

        Args:
            x, branch: [G, n, D].
            dropout_key: [G] int32 of the sequences; None for no dropout.
            first_row: [G] position of the first of the n rows in its sequence; 0 when not given.
        Returns:
            [G, n, D].
        """
        decisions = (dropout_key, self.site, self.rate, first_row)
        return residual_norm(x, branch, self.weight, self.bias, *decisions, backend=self.backend)


def number_sites(model: nn.Module) -> None:
    """Numbers the dropout sites of a model in the order of its modules.

    Raises:
        ValueError: for more sites than the stream has counters.
    """
    sites = [module for module in model.modules() if isinstance(module, DropoutSite)]
    if len(sites) > len(SITES):
        raise ValueError(f"{len(sites)} dropout sites in a model: expected at most {len(SITES)}")
    for number, site in zip(SITES, sites, strict=False):
        site.site = number
